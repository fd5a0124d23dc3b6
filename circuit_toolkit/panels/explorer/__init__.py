"""The explorer: one screen for a prompt, its circuit, and what each node does."""
