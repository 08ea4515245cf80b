"""The optional tensorflow-datasets: what it lacks is one line, and offline at once."""

import importlib.metadata
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sweet_jax.data.sources import load_task
from sweet_jax.settings.fields import DataSettings


def test_tfds_says_how_to_install_it():
    try:
        importlib.metadata.distribution("tensorflow-datasets")
    except importlib.metadata.PackageNotFoundError:
        with pytest.raises(ValueError, match=r"pip install 'sweet_jax\[tfds\]'"):
            load_task(DataSettings(task="tfds/glue/cola"))
    else:
        pytest.skip("tensorflow-datasets is installed")


class Builder:
    """Stands in for a builder of the optional extra, with the extra's own types.

    Its servers are ports of this machine where nobody listens.
    """

    def __init__(self, label: Any, is_prepared: bool) -> None:
        self.is_prepared = lambda: is_prepared
        self.calls = 0
        self.url_infos: dict[str, None] | None = {
            "http://127.0.0.1:9/cola.zip": None,
            "http://127.0.0.1:9/more.zip": None,
            "http://127.0.0.1:10/cola.zip": None,
        }
        self.info = types.SimpleNamespace(
            features={"sentence": None, "label": label, "idx": None},
            splits={"train": None, "validation": None},
        )

    def download_and_prepare(self) -> None:
        """Counts the calls."""
        self.calls += 1

    def as_dataset(self, split: str) -> list[dict[str, Any]]:
        """Returns two rows that name their split."""
        return [
            {"sentence": f"é {split} {i}".encode(), "label": np.int64(i), "idx": i}
            for i in range(2)
        ]


@pytest.fixture
def make_builder(monkeypatch) -> Callable[[bool], Builder]:
    """Puts a stand-in for the extra in its place, with one data set."""

    def make(is_prepared: bool) -> Builder:
        label = type("ClassLabel", (), {"names": ["no", "yes"]})()
        builder = Builder(label, is_prepared)
        tf: Any = types.ModuleType("tensorflow")
        tf.config = types.SimpleNamespace(set_visible_devices=lambda *args: None)
        extra: Any = types.ModuleType("tensorflow_datasets")
        extra.features = types.SimpleNamespace(ClassLabel=type(label))
        extra.as_numpy = lambda dataset: dataset
        extra.builder = lambda name: builder
        text = types.ModuleType("tensorflow_datasets.text")
        for module in (tf, extra, text):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return builder

    return make


def answer_once(server: socket.socket) -> None:
    """Answers one request with 404, as a server does that knows no HEAD of /."""
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def test_offline_an_unprepared_data_set_is_one_line_within_15_seconds(make_builder):
    builder = make_builder(False)
    start = time.monotonic()
    with pytest.raises(ValueError, match="not on this disk and out of reach") as raised:
        load_task(DataSettings(task="tfds/glue/cola"))
    assert time.monotonic() - start < 15
    message = str(raised.value)
    assert message.startswith("data.task=tfds/glue/cola cannot be loaded: it is not")
    assert "(127.0.0.1:10, 127.0.0.1:9): connect" in message
    assert message.endswith("or use local files (data.task=file)")
    assert "\n" not in message
    assert builder.calls == 0


def test_offline_a_prepared_data_set_is_read(make_builder):
    make_builder(True)
    raw = load_task(DataSettings(task="tfds/glue/cola"))
    assert raw.label_names == ("no", "yes")
    assert raw.splits["train"].texts == ("é train 0", "é train 1")
    assert raw.splits["validation"].labels.tolist() == [0, 1]


def test_one_server_that_answers_is_enough(make_builder, monkeypatch):
    builder = make_builder(False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setitem(builder.url_infos, f"http://127.0.0.1:{port}/a", None)
        threading.Thread(target=answer_once, args=(server,), daemon=True).start()
        raw = load_task(DataSettings(task="tfds/glue/cola"))
    assert builder.calls == 1
    assert len(raw.splits["train"]) == 2


def test_a_data_set_without_known_servers_is_left_to_tfds(make_builder):
    builder = make_builder(False)
    builder.url_infos = None
    load_task(DataSettings(task="tfds/glue/cola"))
    assert builder.calls == 1
