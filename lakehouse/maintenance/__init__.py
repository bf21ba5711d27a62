"""Upkeep of the tables: many small commits a day, and files, metadata and queries stay as they were on the first.

One noun a module: compaction (small files into sorted ones), expiry (old snapshots and what only they need),
orphans (files that nothing names), statistics (what a table is made of). Each is a function of a table that
reports what it did. Running it again, at any time, beside writers and readers, is safe.
"""
