"""The bundled model: its training, its evaluation and its references."""
