"""A circuit as a graph: its layout, its drawing, its page."""
