"""A store of 12 prompts in 4 shards, as tests look at it."""

BATCH = 3  # prompts


class Interruption(Exception):
    """What stops a capture."""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards(folder):
    return sorted(folder.glob("*.safetensors"))
