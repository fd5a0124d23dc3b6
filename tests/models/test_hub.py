"""The hub is not waited for where it does not answer."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from circuit_toolkit.models.hub import answers, at_once, out_of_reach

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = """
import sys, time
from circuit_toolkit.models import load_model, out_of_reach
import beartype, nnsight, transformers  # takes seconds, and asks nobody
began = time.perf_counter()
print(out_of_reach("gpt2"))
try:
    load_model("gpt2")
except Exception as error:
    print(type(error).__name__, error)
print("SECONDS", time.perf_counter() - began)
"""


@pytest.fixture
def closed_port():
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_whether_a_server_answers(closed_port, no_proxy, monkeypatch):
    assert not answers(closed_port)
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert answers(here)
        monkeypatch.setenv("http_proxy", here)
        assert answers(closed_port), "the proxy is asked"
        monkeypatch.setenv("http_proxy", closed_port)
        assert not answers(here)


def test_a_name_that_takes_long_to_resolve_is_not_waited_for(monkeypatch, no_proxy):
    def slow(*_):
        time.sleep(3)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", slow)
    began = time.perf_counter()
    assert not answers("https://example.org")
    assert time.perf_counter() - began < 2


def test_the_library_is_offline_meanwhile_alone(closed_port, no_proxy, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", closed_port)
    with pytest.raises(ValueError), at_once():
        assert constants.is_offline_mode()
        raise ValueError
    assert not constants.is_offline_mode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", here)
        with at_once():
            assert not constants.is_offline_mode()


def test_why_a_model_is_out_of_reach(tmp_path):
    assert out_of_reach(str(tmp_path)) == ""
    assert "gpt2-of-nobody is not in the cache" in out_of_reach("gpt2-of-nobody")
    assert "x y cannot be had" in out_of_reach("x y")


def test_without_a_network_loading_fails_at_once_and_tries_once(closed_port, no_proxy, tmp_path):
    """The library alone retries for 50 s, and says so."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": closed_port}
    environment |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command, text = [sys.executable, "-c", OFFLINE], {"capture_output": True, "text": True}
    done = subprocess.run(command, env=environment, timeout=120, **text)
    assert "gpt2 is not in the cache" in done.stdout and "InputError No model" in done.stdout
    assert float(done.stdout.split("SECONDS")[1]) < 8
    assert "Retrying" not in done.stdout + done.stderr


def test_notebooks_ask_for_the_hub_in_this_way():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert "hf_hub_download" not in notebook.read_text(encoding="utf-8"), notebook.name
