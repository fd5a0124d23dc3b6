"""How far long work is: a bar where one is wanted, and a panel that listens and may stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.texts import printable

Report = Callable[[str, int, int], None]  # what is done, how many steps are, and how many of all
_REPORT: ContextVar[Report | None] = ContextVar("report", default=None)


class Stopped(ToolkitError):
    """Long work was stopped by who asked for it."""


@contextmanager
def reported(report: Report) -> Iterator[None]:
    """Tell of each step in this thread; what the report raises ends the work, such as `Stopped`."""
    token = _REPORT.set(report)
    try:
        yield
    finally:
        _REPORT.reset(token)


class Bar:
    """A progress bar that is shown or not, over items or by `update`; a listener hears of each.

    In a notebook its output is emptied when it is done: a saved notebook, opened again without the
    widget, would show an error in its place.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        label: str = "",
        *,
        shown: bool,
        total: int | None = None,
        initial: int = 0,
        **options: Any,
    ) -> None:
        from tqdm.auto import tqdm

        self.items = () if items is None else items
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.label, self.done, self._report = label, initial, _REPORT.get()
        widget = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
        told = {"total": self.total, "initial": initial, "disable": not shown, "leave": False}
        options |= {"display": False} if widget else {}
        self._bar: Any = tqdm(desc=printable(label), **told, **options)
        self._output: Any = None
        if widget and shown:
            from IPython.display import display

            self._output = display(self._bar.container, display_id=True)

    def __enter__(self) -> Bar:
        """Begin: whoever listens hears of it."""
        self.update(0)
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self.close()

    def __iter__(self) -> Iterator[Any]:
        """Go through the items, one step each."""
        with self:
            for item in self.items:
                yield item
                self.update()

    def update(self, n: int = 1) -> None:
        """Say that so many more steps are done."""
        self.done += n
        self._bar.update(n)
        if self._report is not None:
            self._report(self.label, self.done, self.total or 0)

    def tell(self, label: str = "", **figures: Any) -> None:
        """Write another label, and figures behind the bar."""
        if label:
            self.label = label
            self._bar.set_description(printable(label))
        if figures:
            said = {name: printable(x) if isinstance(x, str) else x for name, x in figures.items()}
            self._bar.set_postfix(**said, refresh=False)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
        if self._output is not None:
            self._output.update({"text/html": ""}, raw=True)
            self._output = None
