"""Small transformers whose circuit branches, trained here: to choose by, and apart to report."""
