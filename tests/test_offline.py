import os
import socket
import threading
import urllib.request

import pytest

ABROAD = ("192.0.2.1", 80)  # reserved for documentation, so nobody is there (RFC 5737)


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
@pytest.mark.parametrize(
    "family, address",
    [(socket.AF_INET, ABROAD), (socket.AF_INET6, ("2001:db8::1", 80)), (socket.AF_INET, ("x", 1))],
)
def test_sockets_reach_nothing_outside(family, address, method):
    with (
        socket.socket(family) as client,
        pytest.raises(RuntimeError, match=f"reach .*{address[0]}"),
    ):
        getattr(client, method)(address)


@pytest.mark.parametrize("host", ["example.org", "192.0.2.1", b"example.org"])
def test_names_are_not_resolved(host):
    with pytest.raises(RuntimeError, match="Tests run without a network"):
        socket.getaddrinfo(host, 443)
    with pytest.raises(RuntimeError, match="Tests run without a network"):
        socket.create_connection((host, 443))


def test_libraries_meet_the_block():
    with pytest.raises(RuntimeError, match="reach .'192.0.2.1'"):
        urllib.request.urlopen("http://192.0.2.1/", timeout=1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_open(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"here")).start()
        with socket.create_connection((host, server.getsockname()[1]), timeout=5) as client:
            assert client.recv(4) == b"here"


def test_unix_sockets_are_open(tmp_path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))


def test_hugging_face_is_told_that_it_is_offline():
    from huggingface_hub import constants

    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert constants.is_offline_mode()


@pytest.mark.browser
def test_pages_open_in_the_browser(page):
    page.set_content("<p id=a>here</p>")
    assert page.locator("#a").inner_text() == "here"


def test_shared_data_is_a_folder(shared_data):
    assert shared_data.is_dir()
