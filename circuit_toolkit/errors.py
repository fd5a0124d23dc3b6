"""Errors of the toolkit: each says what was wrong, what was given and what to do."""


class ToolkitError(Exception):
    """Base of every error that the toolkit raises on purpose."""


class InputError(ToolkitError, ValueError):
    """A value that the user passed cannot be used."""


class MismatchError(InputError):
    """Two things that were passed do not belong together, such as a dictionary and a model."""


class FileFormatError(ToolkitError):
    """A file is damaged, foreign, or of a version that this release does not read."""


class MissingExtra(ToolkitError, ImportError):
    """A package is not installed that an extra brings, such as `circuit_toolkit[lab]`."""


class WriteError(ToolkitError, OSError):
    """A file could not be written: the disk is full, or the folder cannot be written to."""
