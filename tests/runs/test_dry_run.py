"""A dry run says what the run would do, and does none of it."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sweet_jax.models.init import compute_shapes
from sweet_jax.runs import dry_run
from sweet_jax.runs.dry_run import describe_run
from sweet_jax.runs.inputs import prepare
from sweet_jax.runs.workdir import default_workdir
from sweet_jax.settings.fields import Settings, flatten_settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.trees import count_parameters

MIB = 2**20


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.fixture
def measured(monkeypatch) -> list[tuple[Any, ...]]:
    """What a step is measured with; it takes 5 MiB, and is not compiled."""
    calls: list[tuple[Any, ...]] = []

    def measure(*args: Any) -> SimpleNamespace:
        calls.append(args)
        return SimpleNamespace(temporary_bytes=5 * MIB)

    monkeypatch.setattr(dry_run, "measure_step", measure)
    return calls


def describe(settings: Settings, workdir: Path | None = None) -> dict[str, str]:
    """Returns what stands behind the first word or name of each line."""
    shown = describe_run(settings, workdir).splitlines()
    return {line[:15].strip(): line[16:] for line in shown if line[0] != " "}


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({}, "10 per model (2 epochs of 5), 1 model(s) to train"),
        (
            {"method": "two_stage"},
            "20 per model (2 epochs of 5, in each of 2 phases), 1 model(s) to train",
        ),
        (
            {
                "method": "two_stage",
                "exits": {"init": "probe", "layers": (0, 1, 3)},
                "train": {
                    "batch_size": 8,
                    "num_epochs": 2,
                    "contrastive_epochs": 3,
                },
            },
            "35 per model (2 epochs of 5, in each of 2 phases, after 3 contrastive"
            " ones), 1 model(s) to train",
        ),
        (
            {"method": "multi_model"},
            "10 per model (2 epochs of 5), 3 model(s) to train",
        ),
    ],
)
def test_steps_and_parameters_are_those_of_all_models(tiny_config, config, steps):
    settings = from_config_dict(tiny_config | config)
    shown = describe(settings)
    assert shown["steps"] == steps
    sizes = [count_parameters(compute_shapes(m)) for m in prepare(settings).models]
    assert shown["parameters"] == f"{sum(sizes):,}"
    method = config.get("method", settings.method_label)
    assert shown["method"].startswith(f"{method}, exits after layers 0, 1, 3 of 4")


@pytest.mark.usefixtures("measured")
def test_rows_are_described_as_they_will_be_read(tiny_settings):
    prepared = prepare(tiny_settings)
    shown = describe(tiny_settings)
    assert {"train", "calibration", "test"} <= shown.keys()
    for name, rows in prepared.rows.items():
        no, yes = np.bincount(rows.labels)
        found = re.fullmatch(
            r"(\d+) rows \((.*)\); tokens: median (\d+), 95 % within (\d+), longest"
            r" (\d+), cut (\d+)",
            shown[name],
        )
        assert found is not None
        count, labels, median, high, longest, cut = found.groups()
        assert (int(count), labels) == (rows.num_rows, f"no {no}, yes {yes}")
        assert int(longest) == rows.lengths.max()
        assert int(cut) == rows.truncated_rows == 0
        assert abs(int(median) - np.median(rows.lengths)) <= 0.5
        assert abs(int(high) - np.percentile(rows.lengths, 95)) <= 0.5


def test_memory_is_of_four_copies_and_one_step_of_the_largest_model(
    tiny_config, measured
):
    # The longest training rows have 14 tokens: the second length is enough.
    data = tiny_config["data"] | {"max_length": 32, "buckets": (8, 16, 32)}
    settings = from_config_dict(tiny_config | {"data": data, "method": "multi_model"})
    shown = describe(settings)
    prepared = prepare(settings)
    ((model, phase, _, length),) = measured
    assert model == prepared.models[-1]
    assert phase == prepared.members[-1].phases[0]
    longest = prepared.rows["train"].lengths.max()
    assert 8 < longest <= 16 == length
    mebibytes = count_parameters(compute_shapes(model)) * 4 / MIB
    assert shown["memory"] == (
        f"about {4 * mebibytes + 5:,.0f} MiB in training (parameters {mebibytes:,.0f}"
        f" MiB x 4, temporaries 5 MiB at 8 x 16)"
    )


@pytest.mark.usefixtures("measured")
def test_every_setting_is_shown_and_nothing_is_made(
    tiny_settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    exits = dataclasses.replace(tiny_settings.exits, layers=())
    settings = dataclasses.replace(tiny_settings, exits=exits)
    shown = describe_run(settings, None)
    # With the exits of this encoder, which nobody has given.
    resolved = prepare(settings).settings
    assert resolved.exits.layers
    lines = [f"  {name} = {v!r}" for name, v in flatten_settings(resolved).items()]
    assert shown.splitlines()[-len(lines) :] == lines
    assert f"work directory  {default_workdir(resolved)}" in shown
    assert "work directory  mine" in describe_run(settings, Path("mine"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_dry_run_shows_notes(tiny_config, tmp_path):
    rows = Path(tiny_config["data"]["train_file"]).read_text()
    train = tmp_path / "train.jsonl"
    train.write_text(rows + '{"sentence": "nan", "label": "no "}\n')
    data = tiny_config["data"] | {"train_file": str(train), "max_length": 8}
    data |= {"test_file": tiny_config["data"]["train_file"], "buckets": (8,)}
    shown = describe_run(from_config_dict(tiny_config | {"data": data}), None)
    notes = [line for line in shown.splitlines() if line.startswith("note  ")]
    for words in (
        "1 of 121 rows (0.8 %) have a text such as 'nan'",
        "the labels 'no ' (1), 'no' (60) are different classes",
        "are also training rows, compared by their texts",
        "no test row has the class 'no '",
        "are longer than 8 tokens (data.max_length) and are cut",
    ):
        assert any(words in note for note in notes), words
