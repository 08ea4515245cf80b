"""The inputs of a run: what is filled in, what is digested, what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sweet_jax
from sweet_jax.runs import inputs
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.settings.fields import Settings, default_exit_layers
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.training.methods import make_early_exit
from sweet_jax.training.objectives import Member


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


def change(config: dict[str, Any], **sections: Any) -> Settings:
    merged = {
        name: config[name] | value if isinstance(value, dict) else value
        for name, value in sections.items()
    }
    return from_config_dict({**config, **merged})


def test_exits_that_nobody_gave_are_those_of_the_depth(tiny_config, caplog):
    prepared = prepare(change(tiny_config, exits={"layers": ()}))
    assert prepared.settings.exits.layers == default_exit_layers(4)
    assert prepared.models[0].exit_layers == default_exit_layers(4)
    assert not [line for line in caplog.messages if "are cut to" in line]


def test_the_encoder_is_as_deep_as_the_last_exit(tiny_config, caplog):
    with caplog.at_level("INFO"):
        prepared = prepare(change(tiny_config, exits={"layers": (0, 1)}))
    layers = {name for name in prepared.loaded.encoder if name.startswith("layer_")}
    assert layers == {"layer_0", "layer_1"}
    assert prepared.models[0].encoder.num_layers == 2
    line = "the last exit reads layer 1: the encoder is cut from 4 to 2 layers"
    assert line in caplog.messages


def test_rows_are_the_splits_cut_and_laid_out_for_the_model(tiny_config):
    data = {"max_length": 8, "buckets": (4, 8, 16)}
    prepared = prepare(change(tiny_config, data=data))
    assert list(prepared.rows) == ["train", "calibration", "test"]
    assert prepared.buckets == (4, 8)
    assert prepared.num_classes == 2
    assert prepared.pad_id == 0
    for name, rows in prepared.rows.items():
        examples = getattr(prepared.splits, name)
        np.testing.assert_array_equal(rows.labels, examples.labels)
        np.testing.assert_array_equal(rows.row_ids, examples.row_ids)
        assert rows.lengths.max() == 8
        cut = rows.truncated_rows
        assert 0 < cut < rows.num_rows
        line = f"{cut} of {rows.num_rows} {name} rows ("
        assert sum(note.startswith(line) for note in prepared.notes) == 1
    assert set(prepared.splits.notes) < set(prepared.notes)


@pytest.mark.parametrize(
    ("method", "count"), [("early_exit", 1), ("sweet", 1), ("multi_model", 3)]
)
def test_a_training_for_each_model(tiny_config, method, count):
    prepared = prepare(change(tiny_config, method=method))
    assert len(prepared.models) == len(prepared.trainings) == count
    assert prepared.has_separate_models == (count > 1)
    assert prepared.trainings is prepared.trainings, "made once"
    for model, member, training in zip(
        prepared.models, prepared.members, prepared.trainings, strict=True
    ):
        assert (training.model, training.member) == (model, member)
        assert model.exit_numbers == member.exits


@pytest.fixture
def pairs(tiny_config, tmp_path) -> dict[str, Any]:
    """A config whose rows are pairs, in files of its own."""
    for name, count in (("train", 80), ("test", 20)):
        rows = [
            {"one": f"a film {i}", "two": "the plot", "label": ("no", "yes")[i % 2]}
            for i in range(count)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)
        tiny_config["data"][f"{name}_file"] = str(tmp_path / f"{name}.jsonl")
    tiny_config["data"]["text_columns"] = ("one", "two")
    return tiny_config


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "edit",
    [
        lambda rows: rows[3].update(one="another film"),
        lambda rows: rows[3].update(two="the cast"),
        lambda rows: rows[3].update(label="no"),
        lambda rows: rows.reverse(),
        lambda rows: rows.pop(),
        # The same letters, divided otherwise.
        lambda rows: rows[3].update(one="a film 3 the", two="plot"),
    ],
)
def test_any_change_of_rows_changes_their_digest_alone(pairs, tmp_path, edit):
    settings = from_config_dict(pairs)
    before = prepare(settings).inputs
    assert prepare(settings).inputs == before
    path = tmp_path / "test.jsonl"
    rows = read_rows(path)
    edit(rows)
    write_rows(path, rows)
    after = prepare(settings).inputs
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"test_rows"}


def test_a_method_of_another_package_is_digested_with_what_it_says(
    registries, tiny_config
):
    def make_other(settings: Settings, num_exits: int) -> tuple[Member, ...]:
        (member,) = make_early_exit(settings, num_exits)
        (phase,) = member.phases
        return (dataclasses.replace(member, phases=(phase, phase)),)

    found = {}
    for name, function in (("first", make_early_exit), ("other", make_other)):
        sweet_jax.register_method("mine", function, replace=True)
        found[name] = prepare(change(tiny_config, method="mine")).inputs
    assert found["first"]["method"] != found["other"]["method"]
    for name, digest in found["first"].items():
        assert (digest == found["other"][name]) == (name != "method")
    assert "method" not in prepare(from_config_dict(tiny_config)).inputs


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"exits": {"layers": (0, 4)}}, "exits.layers"),
        (
            {"evaluate": {"criteria": ("lte",)}},
            "lte, whose heads are trained only",
        ),
        ({"encoder": {"name": "no/such/folder"}}, "no/such/folder"),
        ({"data": {"test_file": "absent.jsonl"}}, "absent.jsonl"),
    ],
)
def test_what_is_wrong_is_one_line(tiny_config, sections, message):
    with pytest.raises(ValueError, match=message) as error:
        prepare(change(tiny_config, **sections))
    assert "\n" not in str(error.value)


def test_a_pooler_that_the_encoder_lacks_is_not_asked_of_it(tiny_config, monkeypatch):
    load = inputs.load_encoder
    monkeypatch.setattr(
        inputs,
        "load_encoder",
        lambda *args: dataclasses.replace(load(*args), pooler=None),
    )

    def prepare_from(source: str) -> Prepared:
        return prepare(change(tiny_config, exits={"pooler_init": source}))

    with pytest.raises(SettingsError, match=r"no pooler: set exits\.pooler_init=fresh"):
        prepare_from("checkpoint")
    # The advice leads out.
    assert prepare_from("fresh").settings.exits.pooler_init == "fresh"
