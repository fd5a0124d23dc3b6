"""Dictionaries as other programs write them: a reader for each format, and the table of them."""
