"""The bundled model: its grammar, its training, its weights, and what they can do."""
