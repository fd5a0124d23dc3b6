"""What the browser asks for is done in a thread of its own, so that it can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import traitlets

from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.panels.live import LiveWidget
from circuit_toolkit.progress import Stopped, reported

BEATS = 0.1  # s between two words on how far long work is


class AskedWidget(LiveWidget):
    """A widget that answers requests one after another, tells how far it is, and may be stopped."""

    requests: ClassVar[Mapping[str, Callable[[Any, dict[str, Any]], Any]]] = {}
    _busy = traitlets.Dict().tag(sync=True)
    _answered = traitlets.Int(0).tag(sync=True)  # requests of the browser that are done

    def __init__(self, **traits: Any) -> None:
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._worker: ThreadPoolExecutor | None = None
        super().__init__(**traits)
        self.on_msg(self._hear)

    def wait(self) -> None:
        """Wait until what was asked for in the browser is done."""
        if self._worker is not None:
            self._worker.submit(lambda: None).result()

    def _hear(self, _: Any, content: Any, buffers: Any) -> None:
        """Do what the browser asks for, after what it asked for before."""
        do = str(content.get("do")) if isinstance(content, dict) else ""
        if do == "stop":
            if self._busy.get("words"):  # else nothing runs that could be stopped
                self._stop.set()
        elif do in self.requests:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, "explorer")
            self._worker.submit(self._act, do, content)

    def _act(self, do: str, content: dict[str, Any]) -> None:
        self._stop.clear()
        last = time.monotonic()

        def report(label: str, done: int, total: int) -> None:
            nonlocal last
            self._refuse_stopped()
            if label and time.monotonic() - last > BEATS:
                last = time.monotonic()
                self._busy = {**self._busy, "step": label, "done": done, "total": total}

        try:
            with self._lock, reported(report):
                self._busy = {"words": "working"}
                self.requests[do](self, content)
                self._busy = {}
        except Exception as error:
            self._busy = {"error": str(error), "of": do}
            if not isinstance(error, ToolkitError):  # a defect: it keeps its traceback
                raise
        finally:
            self._stop.clear()  # what Python asks for next is not stopped
            self._answered += 1

    def _tell(self, words: str) -> None:
        """Say what long work is at; stop where that was asked for."""
        self._refuse_stopped()
        if self._busy.get("words"):
            self._busy = {"words": words}

    def _refuse_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped("Stopped: what was shown before is still there.")

    def close(self) -> None:
        """Close the widget, and stop what it does."""
        self._stop.set()
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
        super().close()
