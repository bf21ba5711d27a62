"""Recorded markets as feeds: one module a format, and what they share."""
