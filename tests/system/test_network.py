"""Whether a server is there is known within its seconds, whatever happens."""

import socket
import threading
import time

from sweet_jax.system.network import is_reachable


def test_a_hub_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        assert not is_reachable(address, seconds=0.3)
        assert time.monotonic() - start < 2


def test_a_name_that_never_resolves_is_given_up(monkeypatch):
    """No time limit of a connection covers the look-up of its name."""
    end = threading.Event()

    def hang(*args, **kwargs):
        end.wait(5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    assert not is_reachable("http://nowhere.invalid", seconds=0.3)
    assert time.monotonic() - start < 2
    end.set()
