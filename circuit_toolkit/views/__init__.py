"""Views: pictures of circuits and activations that need no network; they compute nothing."""
