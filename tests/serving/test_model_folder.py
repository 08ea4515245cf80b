"""Model folders come from anyone: success or one line, whatever lies in them."""

import contextlib
import dataclasses
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from jax.nn import softmax
from safetensors.numpy import load_file, save_file

import sweet_jax
from benchmarks.tiny_model import DESCRIPTION, make_calibration, write_tiny_model
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import register_criterion
from sweet_jax.serving import model_folder
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import (
    ModelFolderError,
    load_calibration,
    load_model_folder,
    update_description,
)
from sweet_jax.settings.fields import list_fields
from sweet_jax.standalone.checks import read_checksums
from sweet_jax.system.checksums import write_checksums
from sweet_jax.thresholds.budget import choose_speedup
from sweet_jax.thresholds.risk import choose_risk
from tests.exit_banks import COSTS_E, LAYERS, make_bank


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def check_refused(folder: Path, message: str) -> None:
    """Loading is refused in one printable line, within seconds."""
    start = time.perf_counter()
    with pytest.raises(ModelFolderError, match=message) as error:
        load_model_folder(folder)
    assert time.perf_counter() - start < 5
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def change_description(folder: Path, **changes: Any) -> None:
    """Changes model.json, and signs the folder again."""
    path = folder / "model.json"
    write_json(path, json.loads(path.read_text()) | changes)
    write_checksums(folder)


def change_checksums(folder: Path, **changes: Any) -> None:
    path = folder / "checksums.json"
    write_json(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "lists no checksums: copy the folder again"),
        ("[]", "lists no checksums"),
        ('{"model.json": 5}', "lists no checksums"),
        ('{"model.json": "abc"}', "lists no checksums"),
        ("[" * 100_000, "is damaged"),
        ('{"model.json": ' + "1" * 5000 + "}", "is damaged"),
        ('{"model.json": NaN}', "NaN is not valid JSON"),
        ("\xff", "lists no checksums|is damaged"),
    ],
    ids=range(8),
)
def test_checksums_that_are_none(folder, content, message):
    (folder / "checksums.json").write_text(content, encoding="latin-1")
    check_refused(folder, message)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "..\\x", "a/../../x", "\x1b[2J", "a\nb", "x" * 999]
)
def test_names_that_are_not_in_the_folder(folder, name):
    (folder.parent / "x").write_text("outside")
    change_checksums(folder, **{name: "0" * 64})
    check_refused(folder, "lacks the file ")


def test_files_that_are_not_listed(folder):
    (folder / "tokenizer" / "more.py").write_text("")
    check_refused(folder, r"holds tokenizer/more\.py, which .* does not list: move it")
    # The advice leads out.
    (folder / "tokenizer" / "more.py").unlink()
    load_model_folder(folder)


def test_links_and_what_is_no_file(folder, tmp_path):
    config = folder / "encoder" / "config.json"
    config.rename(tmp_path / "config.json")
    config.symlink_to(tmp_path / "config.json")
    check_refused(folder, r"holds the link encoder/config\.json: copy the folder with")
    # The advice leads out: copytree follows links, as cp -rL does.
    load_model_folder(Path(shutil.copytree(folder, tmp_path / "copy")))
    config.unlink()
    (tmp_path / "config.json").rename(config)
    (folder / "more").symlink_to(tmp_path)
    check_refused(folder, "holds the link more")
    (folder / "more").unlink()
    os.mkfifo(folder / "pipe")
    check_refused(folder, "holds pipe, not a regular file: remove it")


@pytest.mark.parametrize(
    "name",
    ["model.json", "encoder/config.json", "params.safetensors", "calibration.npz"],
)
def test_files_that_every_model_has(folder, name):
    (folder / name).unlink()
    what = "is not a model folder" if name == "model.json" else f"lacks the file {name}"
    check_refused(folder, what)
    if name != "model.json":
        write_checksums(folder)
        check_refused(folder, what)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": [0, 1]}, "temperatures.0"),
        ({"temperatures": [-1.0, 1]}, "temperatures.0"),
        ({"temperatures": [1]}, "temperatures is out of range or contradicts"),
        ({"temperatures": [True, 1]}, "temperatures.0"),
        ({"temperatures": ["1", 1]}, "temperatures.0"),
        ({"temperatures": [1e-310, 1]}, "temperatures.0"),
        ({"temperatures": [10**400, 1]}, "temperatures.0"),
        ({"exit_layers": [1, 0]}, "exit_layers is out of range"),
        ({"exit_layers": [0, 0]}, "exit_layers is out of range"),
        ({"exit_layers": [-1, 1]}, "exit_layers.0"),
        ({"exit_layers": []}, "exit_layers"),
        ({"exit_layers": [0, 2**40]}, "exit_layers.1"),
        ({"exit_layers": [0, 10**4000]}, "exit_layers.1"),
        ({"exit_layers": [0, 5]}, "up to 5 of 2 layers"),
        ({"exit_layers": {"0": 1}}, "exit_layers"),
        ({"member_exits": [[0]]}, "member_exits is out of range"),
        ({"member_exits": [[0], [0, 1]]}, "member_exits is out of range"),
        ({"member_exits": [[1], [0]]}, "member_exits is out of range"),
        ({"member_exits": [[0], [1]]}, "other tensors than model.json"),
        ({"label_names": ["a"]}, "label_names"),
        ({"label_names": ["a", "a"]}, "label_names is out of range"),
        ({"label_names": ["a", 5]}, "label_names.1"),
        ({"label_names": "ab"}, "label_names"),
        ({"label_names": ["a", "b", "c"]}, "other tensors than model.json"),
        ({"buckets": [16, 8, 32], "bucket_rows": [4, 2, 2]}, "buckets is out of range"),
        ({"buckets": []}, "buckets"),
        ({"buckets": [8, 16, 2**40]}, "buckets.2"),
        ({"buckets": [8, 16, 64]}, "buckets up to 64 of 32"),
        ({"bucket_rows": [4]}, "bucket_rows is out of range"),
        ({"bucket_rows": [4, -2, 6]}, "bucket_rows.1"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": 33}, "max_length is out of range"),
        ({"max_length": 16.0}, "max_length"),
        ({"dtype": "float64"}, "dtype"),
        ({"dtype": "object"}, "dtype"),
        ({"pooling": "max"}, "pooling"),
        ({"matmul_precision": "BF16_BF16_F32_X9"}, "matmul_precision"),
        ({"metric": "mcc"}, "metric='mcc': allowed are accuracy.*import that first"),
        ({"cost_fractions": [0, 1]}, "cost_fractions.0"),
        ({"cost_fractions": [0.5, 2.5]}, "cost_fractions is out of range"),
        ({"lte_ranges": [[0.5, 0.1]] * 2}, "lte_ranges is out of range"),
        ({"lte_ranges": [[0, 1]]}, "lte_ranges is out of range"),
        ({"lte_ranges": [[0, 1]] * 2}, "other tensors than model.json"),
        (
            {"thresholds": {"confidense": []}},
            "did you mean confidence.*import that first",
        ),
        ({"thresholds": {"lte": [{"target": 2}]}}, "thresholds is out of range"),
        ({"thresholds": {"lte": [{"target": "2"}]}}, "thresholds.lte.0.target"),
        ({"thresholds": []}, "thresholds"),
        ({"has_pairs": 1}, "has_pairs"),
        ({"text_columns": ["a", "b"]}, "text_columns is out of range"),
        ({"text_columns": ["label"]}, "text_columns is out of range"),
        ({"text_columns": [""]}, "text_columns.0"),
        ({"text_columns": ["x" * 1001]}, "text_columns.0"),
        ({"text_columns": "text"}, "text_columns"),
        ({"label_column": "x" * 1001}, "label_column"),
        ({"label_column": None}, "label_column"),
        ({"shared_pooler": True}, "other tensors than model.json"),
        ({"ignore_attributes": "all"}, "ignore_attributes"),
        ({"digest": 5}, "digest"),
        ({"schema": 0}, "it has no schema"),
        ({"schema": 2}, "has schema 2, this version reads up to 1: update"),
        ({"schema": True}, "it has no schema"),
    ],
)
def test_descriptions_out_of_range(folder, changes, message):
    change_description(folder, **changes)
    check_refused(folder, message)


def test_every_field_is_wanted(folder):
    for name in json.loads((folder / "model.json").read_text()):
        copy = Path(shutil.copytree(folder, folder.with_name(f"without_{name}")))
        fields = json.loads((copy / "model.json").read_text())
        del fields[name]
        write_json(copy / "model.json", fields)
        write_checksums(copy)
        check_refused(copy, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "is damaged"),
        (b"\xff", "is damaged"),
        (b"[]", "is not a JSON object"),
        (b"", "is damaged"),
    ],
)
def test_descriptions_that_are_none(folder, content, message):
    (folder / "model.json").write_bytes(content)
    write_checksums(folder)
    check_refused(folder, message)


def test_words_are_those_of_the_settings():
    hints = get_type_hints(ModelDescription, include_extras=True)
    for name, field in (
        ("dtype", "encoder.dtype"),
        ("matmul_precision", "encoder.matmul_precision"),
        ("pooling", "exits.pooling"),
    ):
        (rule,) = list_fields()[field].__metadata__
        words = "|".join(word for word in rule.words if word != "auto")
        assert f"^({words})$" in str(hints[name].__metadata__)


def change_params(
    folder: Path, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    """Changes the parameters, and signs the folder again."""
    params = load_file(folder / "params.safetensors")
    change(params)
    save_file(params, folder / "params.safetensors")
    write_checksums(folder)


_BIAS = "exits/exit_0/classifier/bias"
_WORDS = "encoder/embeddings/word/embedding"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop(_BIAS), f"the first {_BIAS}: found None, expected"),
        (lambda p: p.update(x=p[_BIAS]), "the first x: found .*, expected None"),
        (lambda p: p.update({"\x1b[2J": p[_BIAS]}), r"the first \\x1b\[2J"),
        (lambda p: p.update({_BIAS: p[_BIAS][:1]}), rf"{_BIAS}: found \(\(1,\), 'F32'"),
        (lambda p: p.update({_BIAS: p[_BIAS].astype("f2")}), "'F16'"),
        (lambda p: p.update({_BIAS: p[_BIAS].astype("f8")}), "'F64'"),
        (
            lambda p: p.update({_BIAS: np.array([0, np.nan], "f4")}),
            f"1 of 2 values of {_BIAS} are not finite .*train this one again",
        ),
        (
            lambda p: p.update({_WORDS: np.full_like(p[_WORDS], -np.inf)}),
            f"640 of 640 values of {_WORDS} are not finite",
        ),
    ],
)
def test_parameters_of_another_model(folder, change, message):
    change_params(folder, change)
    check_refused(folder, message)


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"x": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}},
        {"x": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": "x" * 5000, "data_offsets": [0, 4]}},
        {},
    ],
)
def test_headers_that_claim_anything(folder, header):
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(8)
    (folder / "params.safetensors").write_bytes(data)
    write_checksums(folder)
    check_refused(folder, "params.safetensors (is damaged|has other tensors)")


@pytest.mark.parametrize(
    "name", ["params.safetensors", "calibration.npz", "tokenizer/tokenizer.json"]
)
def test_a_terabyte_of_nothing_is_not_read(folder, name):
    with (folder / name).open("ab") as file:
        file.truncate(1 << 40)
    check_refused(folder, f"{name} is larger than any such file")


def test_configs_of_another_encoder(folder):
    path = folder / "encoder" / "config.json"
    config = json.loads(path.read_text())
    for changes in ({"hidden_size": 64}, {"vocab_size": 5}, {"num_hidden_layers": 1}):
        write_json(path, config | changes)
        write_checksums(folder)
        check_refused(folder, "contradicts|other tensors than")


def test_labels_do_not_reach_the_terminal_as_they_are(folder):
    names = ["\x1b]0;owned\x07", "\u202egood"]
    change_description(folder, label_names=names, method="\x1b[31m", task="a\nb")
    assert repr(sweet_jax.load(folder)).isprintable()


def test_a_calibration_that_is_none(folder):
    description, _ = load_model_folder(folder)
    for damage, message in (
        (lambda bank: dataclasses.replace(bank, labels=bank.labels + 1), "labels out"),
        (lambda bank: bank.select(np.arange(7)), "has other rows, exits or classes"),
    ):
        bank = damage(make_calibration(description))
        bank.save(folder / "calibration.npz", description.digest)
        with pytest.raises(ModelFolderError, match=message):
            load_calibration(folder, description)
    (folder / "calibration.npz").write_bytes(b"PK")
    write_checksums(folder)
    with pytest.raises(ModelFolderError, match="npz is damaged"):
        sweet_jax.load(folder)


@contextlib.contextmanager
def set_umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_of_new_ones(tmp_path, mask):
    with set_umask(mask):
        folder = write_tiny_model(tmp_path / "model")
    files = [path for path in folder.rglob("*") if path.is_file()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert set(modes.values()) == {0o666 & ~mask}, modes


def test_an_update_keeps_the_weights_and_their_checksums(folder):
    description, _ = load_model_folder(folder)
    before = read_checksums(folder)
    inode = (folder / "params.safetensors").stat().st_ino
    changed = dataclasses.replace(description, temperatures=(2.0, 2.0))
    update_description(folder, changed, make_calibration(changed))
    after = read_checksums(folder)
    assert load_model_folder(folder)[0] == changed
    assert (folder / "params.safetensors").stat().st_ino == inode
    assert {name for name in before if before[name] != after[name]} == {"model.json"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "name", ["params.safetensors", "tokenizer/tokenizer.json", "calibration.npz"]
)
def test_damage_never_gets_new_checksums(folder, name):
    description, _ = load_model_folder(folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelFolderError, match=f"{name} was altered or damaged"):
        update_description(folder, description, make_calibration(description))
    check_refused(folder, f"{name} was altered or damaged")


@pytest.mark.parametrize("what", ["safetensors", "tokenizer", "bank"])
def test_a_full_disk_leaves_nothing_half(tiny_model, tmp_path, monkeypatch, what):
    def fail(*_: Any, **__: Any) -> None:
        if what == "bank":
            raise OSError(28, "No space left on device")
        # As the Rust of safetensors and tokenizers says it.
        raise Exception("I/O error: No space left on device (os error 28)")

    if what == "safetensors":
        monkeypatch.setattr(model_folder, "save_file", fail)
    elif what == "bank":
        monkeypatch.setattr(np, "savez", fail)
    else:
        monkeypatch.setattr("tokenizers.Tokenizer.save", fail, raising=False)
    before = read_checksums(tiny_model)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "there" / "model"))
    description, params = load_model_folder(folder)

    class Tokenizer:
        def save_pretrained(self, out: str) -> None:
            Path(out).mkdir()
            if what == "tokenizer":
                fail()

    with pytest.raises(OSError, match="No space left") as error:
        model_folder.save_model_folder(
            folder,
            description,
            params,
            folder / "encoder" / "config.json",
            Tokenizer(),
            make_calibration(description),
        )
    assert str(error.value.filename).startswith(str(folder))
    assert ".tmp" not in str(error.value.filename)
    assert read_checksums(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_weight_that_overflows_gives_an_error_not_nan(folder):
    kernel = "exits/exit_1/classifier/kernel"
    change_params(folder, lambda p: p.update({kernel: np.full_like(p[kernel], 3e38)}))
    classifier = sweet_jax.load(folder)
    with pytest.raises(ValueError, match="input 0: exit 1 gives probabilities that"):
        classifier.predict(["good warm film", "a plot"])
    # Who leaves before is answered.
    assert classifier.predict(["good warm film"], threshold=0.5)[0].exit == 0


def test_random_damage_is_refused_or_changes_nothing(folder):
    description, params = load_model_folder(folder)
    rng = np.random.default_rng(0)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        whole = path.read_bytes()
        for _ in range(4):
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            path.write_bytes(
                data[: rng.integers(len(data)) if rng.random() < 0.3 else None]
            )
            with pytest.raises(ModelFolderError) as error:
                load_model_folder(folder)
            assert str(error.value).isprintable()
        path.write_bytes(whole)
    again = load_model_folder(folder)
    assert again[0] == description
    np.testing.assert_equal(again[1], params)


def describe(**changes) -> ModelDescription:
    description = dataclasses.replace(
        DESCRIPTION,
        label_names=("a", "b", "c"),
        exit_layers=LAYERS,
        member_exits=((0, 1, 2, 3),),
        temperatures=(1.5, 1.0, 2.0, 0.5),
        cost_fractions=tuple(COSTS_E.tolist()),
        buckets=(32,),
        bucket_rows=(600,),
        digest="digest",
    )
    return dataclasses.replace(description, **changes)


def test_a_model_folder_brings_its_calibration(tmp_path, rng):
    lte_NE = rng.random((600, 4)).astype(np.float32)
    fitted = Calibration(
        dataclasses.replace(make_bank(rng), lte=lte_NE),
        np.array([1.5, 1.0, 2.0, 0.1], np.float32),
        np.array([[0.1, 0.9]] * 4, np.float32),
        COSTS_E,
        "accuracy",
    )
    description = describe(**fitted.describe())
    fitted.bank.save(tmp_path / "calibration.npz", description.digest)
    loaded = load_calibration(tmp_path, description)
    for name in ("temperatures", "lte_ranges", "costs_E"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))
    assert loaded.metric == fitted.metric
    for criterion in ("confidence", "lte"):
        for choose in (choose_speedup, choose_risk):
            value = 2.0 if choose is choose_speedup else 0.1
            one, same = (
                choose(c, value, criterion=criterion) for c in (loaded, fitted)
            )
            assert one == same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "other"}, "is of another training: copy the folder again"),
        ({"bucket_rows": (599,)}, "has other rows, exits or classes than model.json"),
        ({"label_names": ("a", "b")}, "has other rows, exits or classes"),
        ({"lte_ranges": ((0.0, 1.0),) * 4}, "has other rows, exits or classes"),
        ({"exit_layers": (0,), "member_exits": ((0,),)}, "has other rows, exits"),
    ],
)
def test_calibration_rows_of_another_model_are_refused(tmp_path, rng, changes, message):
    if "exit_layers" in changes:
        changes = changes | {"temperatures": (1.0,), "cost_fractions": (1.0,)}
    make_bank(rng).save(tmp_path / "calibration.npz", "digest")
    with pytest.raises(ModelFolderError, match=message):
        load_calibration(tmp_path, describe(**changes))


def test_missing_calibration_rows_are_one_line(tmp_path):
    with pytest.raises(ModelFolderError, match="npz is missing: copy the folder"):
        load_calibration(tmp_path, describe())


@pytest.mark.usefixtures("registries")
def test_a_criterion_of_another_package_is_known_once_it_is_imported(folder):
    change_description(folder, thresholds={"gini": []})
    check_refused(folder, "criterion='gini': allowed are .*import that first")
    register_criterion("gini", lambda logits: (softmax(logits) ** 2).sum(axis=-1))
    description, _ = load_model_folder(folder)
    assert list(description.thresholds) == ["gini"]
