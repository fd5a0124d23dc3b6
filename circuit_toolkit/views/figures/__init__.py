"""Plotly figures, one for each kind of result."""
