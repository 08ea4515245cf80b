"""Files of a run: what cannot be read is one line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from report_files import NUM_STEPS, change_results, make_workdir, record_files

from sweet_jax.report import files, write_report
from sweet_jax.system.files import FileError


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests copy it before they change it."""
    return make_workdir(
        tmp_path_factory.mktemp("runs") / "sweet-s0", exit_layers=(1, 5)
    )


def _break_schema(workdir: Path) -> None:
    change_results(workdir, schema=2)


def _break_json(workdir: Path) -> None:
    path = workdir / "results.json"
    path.write_text(path.read_text()[:500])


def _break_fields(workdir: Path) -> None:
    results = files.read_results(workdir)
    del results["area"], results["majority"]
    (workdir / "results.json").write_text(json.dumps(results))


def _break_exits(workdir: Path) -> None:
    results = files.read_results(workdir)
    change_results(workdir, exits=[{"exit": 0}, *results["exits"][1:]])


def _break_extra_test(workdir: Path) -> None:
    change_results(workdir, extra_tests={"other": {"exits": []}})


def _break_exits_of_extra_test(workdir: Path) -> None:
    measures = {"exits": [{"exit": 0}], "at_speedup": {}, "area": {}}
    change_results(workdir, extra_tests={"other": measures})


def _break_finish(workdir: Path) -> None:
    (workdir / "results.json").unlink()


def _break_everything(workdir: Path) -> None:
    for path in workdir.iterdir():
        path.unlink()


def _break_directory(workdir: Path) -> None:
    shutil.rmtree(workdir)


def _break_kind(workdir: Path) -> None:
    shutil.rmtree(workdir)
    workdir.write_text("a file")


def _break_curves(workdir: Path) -> None:
    path = workdir / "curves.npz"
    path.write_bytes(path.read_bytes()[:2000])


def _break_array(workdir: Path) -> None:
    with np.load(workdir / "curves.npz") as arrays:
        kept = {n: arrays[n] for n in arrays.files if n != "share/margin/share"}
    np.savez(workdir / "curves.npz", **kept)  # type: ignore[arg-type]


def _break_missing_curves(workdir: Path) -> None:
    (workdir / "curves.npz").unlink()


def _break_log(workdir: Path) -> None:
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 37')


def _break_config(workdir: Path) -> None:
    (workdir / "config.json").write_text("[]")


def _break_settings(workdir: Path) -> None:
    (workdir / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_break_schema, "has schema 2, this version reads up to 1: update"),
        (_break_json, "results.json is damaged"),
        (_break_fields, "results.json is damaged .majority: Field required.: "),
        (_break_exits, "damaged .exits.0.layer: Field required.: "),
        (_break_extra_test, "damaged .extra_tests.other.at_speedup: Field "),
        (
            _break_exits_of_extra_test,
            "damaged .extra_tests.other.exits.0.layer: Field ",
        ),
        (_break_finish, "holds an unfinished run"),
        (_break_everything, "is not a work directory"),
        (_break_directory, "does not exist"),
        (_break_kind, "is not a directory"),
        (_break_curves, "curves.npz is damaged"),
        (_break_array, "curves.npz lacks share/margin/share: "),
        (_break_missing_curves, "curves.npz is missing"),
        # The line after the steps' and the one of the cost.
        (_break_log, f"metrics.jsonl, line {NUM_STEPS + 2}, is damaged"),
        (_break_config, "config.json is not a JSON object"),
        (_break_settings, "config.json is damaged"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    finished: Path, tmp_path: Path, capsys, break_it, message
):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    break_it(workdir)
    if (workdir / "checksums.json").exists():
        record_files(workdir)  # An odd file that the run wrote itself.
    assert run_command("report", str(workdir)) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(rf"error: .*{message}.*\n", errors), errors
    if workdir.is_dir():
        # Half a report would be taken for a whole one.
        assert not (workdir / "report.html").exists()


@pytest.mark.parametrize(
    "name",
    ["results.json", "curves.npz", "metrics.jsonl", "config.json", "checksums.json"],
)
def test_a_file_that_changed_is_not_read(finished: Path, tmp_path: Path, name: str):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    data = bytearray((workdir / name).read_bytes())
    data[len(data) // 2] ^= 1
    for content in (bytes(data), data[: len(data) // 2], b"", None):
        (workdir / name).unlink()
        if content is not None:
            (workdir / name).write_bytes(content)
        elif name == "results.json":
            return  # The run is unfinished.
        with pytest.raises(FileError, match=f"{name}.*: repeat the command of the run"):
            write_report(workdir)
        (workdir / name).write_bytes(data)
