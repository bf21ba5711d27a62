"""Run the whole of Tickhouse on one machine without containers (`just up`)."""
