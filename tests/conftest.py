"""What every test has: no network, fixed seeds, and data and a browser where they can be had."""

from __future__ import annotations

import ipaddress
import os
import random
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

    from circuit_toolkit.dictionaries import Dictionary
    from circuit_toolkit.models import Model
    from circuit_toolkit.sites import Site

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported; notebooks inherit it

ROOT = Path(__file__).resolve().parent.parent
INTERNET = (socket.AF_INET, socket.AF_INET6)


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine; no OSError, which libraries catch and hide."""


def is_local(host: Any) -> bool:
    """Whether a host is this machine; None and "" are a server's wildcards."""
    if isinstance(host, bytes):
        host = host.decode()
    if not host or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def refuse_unless_local(host: Any, address: Any) -> None:
    if not is_local(host):
        raise NetworkBlocked(f"A test tried to reach {address!r}. Tests run without a network.")


def block_network() -> None:
    """Let sockets of this process reach only loopback addresses and Unix sockets."""
    resolve, create = socket.getaddrinfo, socket.create_connection

    def guarded(connect):
        def call(self, address):
            if self.family in INTERNET:
                refuse_unless_local(address[0], address)
            return connect(self, address)

        return call

    def getaddrinfo(host, port, *args, **kwargs):
        refuse_unless_local(host, (host, port))
        return resolve(host, port, *args, **kwargs)

    def create_connection(address, *args, **kwargs):
        refuse_unless_local(address[0], address)
        return create(address, *args, **kwargs)

    socket.socket.connect = guarded(socket.socket.connect)
    socket.socket.connect_ex = guarded(socket.socket.connect_ex)
    socket.getaddrinfo = getaddrinfo
    socket.create_connection = create_connection


def pytest_configure() -> None:
    block_network()  # for the whole process: doctests in the package are blocked too


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of larger models and prompts that the repository does not hold."""
    folder = Path(os.environ.get("CIRCUIT_TOOLKIT_SHARED_DATA", ROOT / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout, nor CIRCUIT_TOOLKIT_SHARED_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def tiny() -> Model:
    """A tiny random model of the bundled language, see tests/tiny.py."""
    from tests.tiny import tiny_model

    return tiny_model()


@pytest.fixture(scope="session")
def tiny_folder(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a random autoencoder for every residual site of `tiny` and its transcoders."""
    from tests.tiny import write_dictionaries

    return write_dictionaries(tiny, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_saes(tiny: Model, tiny_folder: Path) -> dict[Site, Dictionary]:
    from circuit_toolkit.dictionaries import load_dictionaries

    return load_dictionaries(tiny, tiny_folder)


@pytest.fixture(scope="session")
def demo() -> Model:
    """The bundled model."""
    from circuit_toolkit.models import load_model

    return load_model("demo")


@pytest.fixture(scope="session")
def demo_saes(demo: Model) -> dict[Site, Dictionary]:
    from circuit_toolkit.dictionaries import load_dictionaries

    return load_dictionaries(demo)


@pytest.fixture(scope="session")
def demo_transcoders(demo: Model) -> dict[Site, Dictionary]:
    from circuit_toolkit.dictionaries import load_dictionaries

    return load_dictionaries(demo, kind="transcoder")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; without one browser tests skip, and under CI they fail."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    reason = "no Chromium on the PATH: install Debian's package chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield instance
        instance.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; the test fails if the page asks for anything beyond this machine."""
    foreign: list[str] = []

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.scheme not in ("http", "https", "ws", "wss") or is_local(url.hostname):
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    context = browser.new_context()
    context.route("**/*", answer)
    yield context.new_page()
    context.close()
    assert not foreign, f"The page asked the network for {foreign}"
