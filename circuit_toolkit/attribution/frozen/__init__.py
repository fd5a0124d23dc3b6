"""The model at one batch with attention and norms held: then it is linear."""
