"""Training of autoencoders and transcoders on a model at hand, resumable."""
