"""What a panel writes itself is not taken for what a user does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Quiet:
    """Something whose observers ask `_quiet` before they act."""

    _quiet = False

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Write without acting on it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before
