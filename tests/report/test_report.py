"""Reports: made of files alone, whole, and the same every time."""

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from report_files import NUM_STEPS, change_results, make_workdir, record_files

from sweet_jax.commands.report import main
from sweet_jax.report import files, format_summary, style, write_report
from sweet_jax.system.files import FileError

_RUN_AS_A_USER = """
import runpy, sys
sys.argv = ['report', sys.argv[1]]
try:
    runpy.run_module('sweet_jax.commands.report', run_name='__main__')
except SystemExit as done:
    assert done.code == 0, done.code
heavy = {'jax', 'jaxlib', 'flax', 'transformers', 'scipy', 'pandas'}
print('HEAVY', sorted(heavy & sys.modules.keys()))
print('OURS', sorted(m for m in sys.modules if m.startswith('sweet_jax')
                     and not m.startswith('sweet_jax.report')))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests copy it before they change it."""
    return make_workdir(
        tmp_path_factory.mktemp("runs") / "sweet-s0", exit_layers=(1, 5)
    )


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory) -> list[Path]:
    """The report files of the finished run; drawing takes seconds, so once."""
    return write_report(
        Path(shutil.copytree(finished, tmp_path_factory.mktemp("written") / "run"))
    )


@pytest.fixture(scope="module")
def commanded(finished: Path, tmp_path_factory) -> tuple[Path, str]:
    """The same run with fields of the future, reported by a process of its own.

    Its work directory and what it printed.
    """
    workdir = tmp_path_factory.mktemp("commanded") / "run"
    shutil.copytree(finished, workdir)
    rows = [{**row, "energy": 1} for row in files.read_results(workdir)["exits"]]
    change_results(workdir, brand_new={"deep": [1]}, exits=rows)
    done = subprocess.run(
        [sys.executable, "-c", _RUN_AS_A_USER, str(workdir)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


_OF_EVERY_COMMAND = ["caches", "checksums", "files", "process", "stopping", "streams"]


def test_report_never_imports_jax(commanded: tuple[Path, str]):
    workdir, printed = commanded
    assert printed.startswith(format_summary(files.read_results(workdir)))
    assert f"\nwrote {workdir / 'report.html'}\n" in printed
    assert "HEAVY []" in printed
    # What every command has, of the standard library alone.
    ours = [
        "",
        ".commands",
        ".system",
        *(f".system.{name}" for name in _OF_EVERY_COMMAND),
    ]
    assert f"OURS {[f'sweet_jax{name}' for name in ours]}" in printed


def test_report_depends_on_known_fields_alone(commanded, written: list[Path]):
    workdir, _ = commanded
    # The same bytes at another time, in another directory, by another process.
    for path in written:
        other = workdir / path.relative_to(written[-1].parent)
        assert path.read_bytes() == other.read_bytes(), path.name


def test_report_writes_the_pictures_and_the_page(written: list[Path]):
    workdir = written[-1].parent
    assert [path.relative_to(workdir).as_posix() for path in written] == [
        "plots/speed_accuracy.png",
        "plots/reliability.png",
        "plots/exits_by_threshold.png",
        "plots/training_loss.png",
        "report.html",
    ]
    for path in written[:-1]:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width == style.DPI * style.WIDTH_INCHES
        assert 0.3 < height / width < 1.5
        assert len(content) > 10_000  # an empty canvas takes some 5 kB
    assert not list(workdir.rglob("*.tmp"))


def test_the_page_needs_no_other_file(written: list[Path]):
    *pictures, path = written
    page = Page(path.read_text(encoding="utf-8"))
    assert "://" not in page.source
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in page.source
    assert "@import" not in page.source
    sources = page.values("img", "src")
    assert len(sources) == len(pictures)
    # Every picture is inline, bit for bit, wherever it stands.
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in sources)
    assert {base64.b64decode(s.removeprefix(prefix)) for s in sources} == {
        picture.read_bytes() for picture in pictures
    }
    assert all(len(alt) > 40 for alt in page.values("img", "alt"))
    assert not page.values("a", "href")


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
        (_break_config, "config.json holds no JSON object"),
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
    assert main([str(workdir)]) == 2
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


def test_output_belongs_to_comparisons(finished: Path, tmp_path: Path, capsys):
    assert main([str(finished), "--output", str(tmp_path / "out")]) == 2
    assert re.fullmatch("error: --output belongs to .*\n", capsys.readouterr().err)
