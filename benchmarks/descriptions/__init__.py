"""What only measures: scores of feature descriptions."""
