"""The tasks in plain English, for tokenizers that were made for it; `tasks` documents them."""
