"""gradient_conflict.json: whole at any moment, taken up again, never mixed up."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweet_jax.analysis.conflict_file import FILE_NAME, ConflictFile, make_header
from sweet_jax.analysis.gradient_conflict import Conflict
from sweet_jax.analysis.parameter_groups import Group
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.checksums import write_sealed
from sweet_jax.system.files import FileError

GROUPS = (Group("layer_0", "place", 0, (0,)), Group("layer_1", "place", 1, (1, 2)))


def make(**changes: Any) -> dict[str, Any]:
    fields = {
        "method_label": "sweet",
        "seed": 3,
        "exit_layers": (0, 2, 3),
        "num_steps": 10,
        "batch_rows": ([5, 2], [7, 1]),
        "groups": GROUPS,
        "num_parameters": (40, 60),
    }
    return make_header(**{**fields, **changes})


def make_conflicts(value: float) -> list[Conflict]:
    """One for each group: of three exits, and of two."""
    return [
        Conflict((0, 1, 2), ((0, 1), (0, 2), (1, 2)), *[(value, None, -value)] * 6),
        Conflict((1, 2), ((1, 2),), *[(value,)] * 6),
    ]


def open_file(workdir: Path, writes: bool = True, **changes: Any) -> ConflictFile:
    return ConflictFile(workdir, make(**changes), writes)


def read(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / FILE_NAME).read_text())


def test_groups_say_which_exits_reach_them_and_which_meet():
    header = make()
    assert (header["num_batches"], header["batch_rows"]) == (2, [[5, 2], [7, 1]])
    first, second = header["groups"]
    assert (first["name"], first["level"], first["num_parameters"]) == (
        *("layer_0", "place"),
        40,
    )
    assert (first["segment"], first["exits"]) == (0, [0, 1, 2])
    assert first["pairs"] == [[0, 1], [0, 2], [1, 2]]
    assert (second["exits"], second["pairs"]) == ([1, 2], [[1, 2]])
    with pytest.raises(ValueError, match="zip"):
        make(num_parameters=(40,))


def test_another_process_goes_on_where_one_was_stopped(tmp_path):
    one = open_file(tmp_path)
    assert not one.path.exists()
    assert one.settled_steps == frozenset()
    one.add(5, make_conflicts(0.5))
    one.add_missing([0])
    other = open_file(tmp_path)
    assert other.settled_steps == {0, 5}
    other.add(10, make_conflicts(0.25))
    other.add(2, make_conflicts(0.125))
    content = read(tmp_path)
    assert [row["step"] for row in content["measurements"]] == [2, 5, 10]
    assert content["missing_steps"] == [0]
    assert open_file(tmp_path).settled_steps == {0, 2, 5, 10}
    del content["measurements"], content["missing_steps"], content["sha256"]
    assert content == make()


def test_a_number_has_six_digits_and_none_is_null(tmp_path):
    open_file(tmp_path).add(1, make_conflicts(1 / 3e7))
    first, second = read(tmp_path)["measurements"][0]["conflicts"]
    names = {"cosine", "cosine_error", "cosine_of_mean", "norm_ratio"}
    # Exits and pairs are the group's.
    assert first.keys() == second.keys() == names | {"norm", "norm_of_mean"}
    for values in first.values():
        assert values == [3.33333e-08, None, -3.33333e-08]


def test_a_step_that_is_measured_again_replaces_itself_and_is_not_missing(tmp_path):
    file = open_file(tmp_path)
    file.add_missing([3, 1])
    file.add_missing([1, 0])
    assert read(tmp_path)["missing_steps"] == [0, 1, 3]
    for value in (0.5, 0.25):
        file.add(1, make_conflicts(value))
    content = read(tmp_path)
    assert content["missing_steps"] == [0, 3]
    [row] = content["measurements"]
    assert row["conflicts"][1]["cosine"] == [0.25]


def test_nothing_new_is_not_written_again(tmp_path):
    """Whoever looks at the file's age sees when something was measured."""
    file = open_file(tmp_path)
    file.add_missing([])
    assert not file.path.exists()
    file.add_missing([4])
    file.path.unlink()
    file.add_missing([4])
    assert not file.path.exists()


def test_only_the_first_of_several_hosts_writes(tmp_path):
    file = open_file(tmp_path, writes=False)
    file.add(5, make_conflicts(0.5))
    file.add_missing([0])
    assert file.settled_steps == {0, 5}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 4}, "seed"),
        ({"batch_rows": ([5, 2],)}, "batch_rows, num_batches"),
        ({"exit_layers": (0, 1, 3)}, "exit_layers"),
        ({"groups": GROUPS[::-1]}, "groups"),
    ],
)
def test_numbers_of_other_settings_do_not_stand_beside_these(tmp_path, changes, names):
    open_file(tmp_path).add(5, make_conflicts(0.5))
    before = (tmp_path / FILE_NAME).read_bytes()
    message = f"was measured with other {names}: keep analysis.num_batches as it was"
    with pytest.raises(SettingsError, match=message) as error:
        open_file(tmp_path, **changes)
    assert "\n" not in str(error.value)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    # The advice leads out.
    (tmp_path / FILE_NAME).rename(tmp_path / "kept.json")
    open_file(tmp_path, **changes).add(5, make_conflicts(0.5))


def damage(content: dict[str, Any], path: Path) -> None:
    path.write_text(path.read_text().replace("0.5", "0.6"))


def cut(content: dict[str, Any], path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def lose(content: dict[str, Any], path: Path) -> None:
    del content["measurements"]
    write_sealed(path, content)


def come_from_later(content: dict[str, Any], path: Path) -> None:
    write_sealed(path, {**content, "schema": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "damaged.*: move it away and repeat the run's command"),
        (cut, "damaged.*: move it away and repeat the run's command"),
        (lose, "is damaged: move it away and repeat the run's command"),
        (come_from_later, "has schema 2, this version reads up to 1: update sweet_jax"),
    ],
)
def test_a_file_that_cannot_be_believed_is_refused_and_left(tmp_path, change, message):
    """Its steps are past: nobody could measure them again."""
    open_file(tmp_path).add(5, make_conflicts(0.5))
    content = read(tmp_path)
    del content["sha256"]
    change(content, tmp_path / FILE_NAME)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(FileError, match=message) as error:
        open_file(tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / FILE_NAME).read_bytes() == before
