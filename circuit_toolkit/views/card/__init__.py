"""What is known of a feature, as a page."""
