"""Ask the Hugging Face hub, without waiting for it where it does not answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 1.0  # to wait for an answer


def out_of_reach(name: str) -> str:
    """Say why a model of the hub cannot be loaded here, at once where there is no network.

    Parameters
    ----------
    name : str
        Of the hub, such as `gpt2`, or a folder.

    Returns
    -------
    str
        Empty where it is a folder or in the cache, or the hub lets its configuration be read.
        Without a network nothing is asked of the hub: whether it answers takes a second at most.

    Examples
    --------
    >>> import os
    >>> out_of_reach(os.curdir)  # a folder
    ''
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if os.path.isdir(name):
        return ""
    with at_once():
        try:
            hf_hub_download(name, "config.json")
        except LocalEntryNotFoundError:
            return f"{name} is not in the cache, and {constants.ENDPOINT} is out of reach."
        except (OSError, ValueError) as error:  # there is none, or it is gated
            return f"{name} cannot be had of the Hugging Face hub: {str(error).splitlines()[0]}"
    return ""


@contextmanager
def at_once() -> Iterator[None]:
    """Where the hub does not answer let its library read the cache alone, and not try for long."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(url: str) -> bool:
    """Whether a server, or the proxy before it, takes a connection; nothing is asked of it."""
    parts = urlsplit(getproxies().get(urlsplit(url).scheme) or url)
    address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection(address, SECONDS).close()
            found.append(True)
        except OSError:
            pass

    attempt = Thread(target=connect, daemon=True)  # resolving a name may take longer
    attempt.start()
    attempt.join(SECONDS)
    return bool(found)
