"""Descriptions of features: tables of words, their file, and prompts for an explainer."""
