"""Versions of what makes activations."""


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that it runs a model with."""
    from importlib.metadata import version

    from circuit_toolkit import __version__

    names = ("torch", "transformers", "nnsight", "sae_lens")
    return {"circuit_toolkit": __version__, **{name: version(name) for name in names}}
