"""Gradient conflict as the report shows it, from files alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from report_files import make_workdir

from sweet_jax import report
from sweet_jax.report import files, gradients, style, write_report
from sweet_jax.system.checksums import write_sealed
from sweet_jax.system.files import FileError

KINDS = ("attention/query", "norms")


def make_conflict(
    exit_layers: tuple[int, ...], steps: tuple[int, ...] = (0, 60, 120), seed: int = 0
) -> dict[str, Any]:
    """Returns what gradient_conflict.json holds, its numbers at random."""
    rng = np.random.default_rng(seed)
    exits = range(len(exit_layers))
    owners = {"embeddings": 0} | {
        f"layer_{i}": next(k for k in exits if i <= exit_layers[k])
        for i in range(exit_layers[-1] + 1)
    }
    named = [
        *(("part", f"{p}/{kind}", k) for p, k in owners.items() for kind in KINDS),
        *(("place", place, k) for place, k in owners.items()),
        *(("segment", f"segment_{k}", k) for k in exits),
    ]
    groups = [
        {
            "name": name,
            "level": level,
            "segment": k,
            "exits": list(exits[k:]),
            "pairs": [[i, j] for i in exits[k:] for j in exits[i + 1 :]],
            "num_parameters": 10,
        }
        for level, name, k in named
    ]

    def measure(group: dict[str, Any]) -> dict[str, list[float]]:
        pairs, shown = len(group["pairs"]), len(group["exits"])
        return {
            "cosine": rng.uniform(-1, 1, pairs).tolist(),
            "cosine_error": rng.uniform(0, 0.1, pairs).tolist(),
            "cosine_of_mean": rng.uniform(-1, 1, pairs).tolist(),
            "norm_ratio": rng.uniform(0.5, 2, pairs).tolist(),
            "norm": rng.uniform(0, 1, shown).tolist(),
            "norm_of_mean": rng.uniform(0, 1, shown).tolist(),
        }

    return {
        "schema": 1,
        "method_label": "sweet",
        "seed": 0,
        "exit_layers": list(exit_layers),
        "num_steps": 120,
        "num_batches": 8,
        "batch_rows": [[3, 1]] * 8,
        "groups": groups,
        "measurements": [
            {"step": step, "conflicts": [measure(group) for group in groups]}
            for step in steps
        ],
        "missing_steps": [],
    }


def test_diagnosis_equals_a_slow_loop():
    conflict = make_conflict((0, 1, 3, 5))
    found = {(m.name, m.step): m for m in gradients.collect_meetings(conflict, "place")}
    expected = {}
    for measurement in conflict["measurements"]:
        for group, numbers in zip(
            conflict["groups"], measurement["conflicts"], strict=True
        ):
            if group["level"] != "place" or group["segment"] > 1:
                continue
            near, among, near_next, among_next, logs = [], [], [], [], []
            for k, (i, j) in enumerate(group["pairs"]):
                cosine = numbers["cosine"][k]
                if i == group["segment"]:
                    near.append(cosine)
                    logs.append(np.log(numbers["norm_ratio"][k]))
                    if j == i + 1:
                        near_next.append(cosine)
                else:
                    among.append(cosine)
                    if j == i + 1:
                        among_next.append(cosine)
            values = [np.mean(x) for x in (near, among, near_next, among_next, logs)]
            expected[group["name"], measurement["step"]] = values
    assert found.keys() == expected.keys()
    assert {name for name, _ in found} == {"embeddings", "layer_0", "layer_1"}
    for key, values in expected.items():
        m = found[key]
        assert (m.near, m.among) == pytest.approx(values[:2])
        assert (m.near_next, m.among_next) == pytest.approx(values[2:4])
        assert np.log(m.ratio) == pytest.approx(values[4])
        assert m.holds == (values[0] < values[1])

    # In words: layers, after the first step.
    late = [expected[f"layer_{i}", step] for i in (0, 1) for step in (60, 120)]
    near, among, near_next, among_next, _ = np.array(late).T
    means = (x.reshape(2, 2).mean(axis=1) for x in (near, among))
    text = gradients.describe_conflict(conflict)
    assert f"later exits' {near.mean():.2f}, among" in text
    assert f"gradients {among.mean():.2f};" in text
    assert f"alone {near_next.mean():.2f} and {among_next.mean():.2f}." in text
    assert f"holds in {np.less(*means).sum()} of 2 layers" in text
    assert f"2 steps; {(near < among).sum()} of 4 layers and steps)" in text
    first = gradients.describe_conflict(make_conflict((0, 1, 3, 5), steps=(0,)))
    assert "(at step 0; " in first


def test_zero_gradients_meet_nowhere_and_are_said_to():
    conflict = make_conflict((0, 1, 3, 5))
    for measurement in conflict["measurements"]:
        for numbers in measurement["conflicts"]:
            for field in ("cosine", "cosine_of_mean", "norm_ratio"):
                numbers[field] = [None] * len(numbers[field])
    assert gradients.collect_meetings(conflict, "place") == []
    assert "No later exit sends a gradient" in gradients.describe_conflict(conflict)
    assert gradients.plot_conflict(conflict).png.startswith(b"\x89PNG")


def test_what_could_not_be_measured_is_said():
    late = {**make_conflict((0, 1, 2), steps=(120,)), "missing_steps": [0, 60]}
    assert "training had passed them: steps 0, 60." in gradients.describe_conflict(late)
    none = {**late, "measurements": []}
    assert gradients.describe_conflict(none).startswith("Nothing was measured.")
    for nothing in (none, make_conflict((3,))):
        assert not gradients.has_cosines(nothing)
    two = gradients.describe_conflict(make_conflict((0, 3)))
    assert two.startswith("No layer is shared by three exits")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exit_layers", "steps"),
    [((0, 5), (0, 120)), (tuple(range(12)), tuple(range(0, 120, 17)))],
)
def test_pictures_of_any_number_of_exits_and_steps(exit_layers, steps):
    with style.plot_style():
        picture = gradients.plot_conflict(make_conflict(exit_layers, steps))
    assert f"one for each of {len(steps)} steps" in picture.alt


def test_page_and_summary_show_it_where_it_was_measured(tmp_path: Path):
    workdir = make_workdir(tmp_path)
    without = report.format_run(workdir)
    conflict = make_conflict((0, 1, 3, 5))
    write_sealed(workdir / "gradient_conflict.json", conflict)
    *_, picture, page = write_report(workdir)
    assert picture.name == "gradient_conflict.png"
    shown = Page(page.read_text())
    for text in (
        "Gradient conflict",
        gradients.describe_conflict(conflict),
        gradients.make_layer_table(conflict).caption,
        gradients.make_kind_table(conflict).caption,
        "attention/query",
    ):
        assert text in shown.text
    summary = report.format_run(workdir)
    assert summary.startswith(without + "\ngradient conflict: Mean cosine of the")
    assert max(map(len, summary.splitlines())) <= 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"schema": "1"}, r"is damaged \(it has no schema\): move it away"),
        ({"schema": 99}, "has schema 99, this version reads up to 1"),
        ({"schema": 1, "groups": []}, "lacks exit_layers, measurements, .*: move it"),
    ],
)
def test_a_file_of_another_version_is_one_line(tmp_path: Path, content, message):
    write_sealed(tmp_path / "gradient_conflict.json", content)
    with pytest.raises(FileError, match=message) as caught:
        files.read_conflict(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_or_is_of_another_run_is_one_line(tmp_path: Path):
    workdir, path = make_workdir(tmp_path), tmp_path / "gradient_conflict.json"
    write_sealed(path, make_conflict((0, 1, 3, 5)))
    text = path.read_text()
    for other in ("", "{}", text[:100], text.replace('"step": 0', '"step": 1')):
        path.write_text(other)
        with pytest.raises(FileError, match=r"is damaged|was altered"):
            report.write_report(workdir)
    write_sealed(path, make_conflict((0, 1, 3, 5)) | {"seed": 7})
    with pytest.raises(FileError, match="is of another run: move it away"):
        report.write_report(workdir)
    path.unlink()
    report.write_report(workdir)
