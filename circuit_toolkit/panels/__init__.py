"""Panels: widgets for the notebook; they hold no mathematics."""
