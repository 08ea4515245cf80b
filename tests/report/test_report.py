"""Reports: made of files alone, whole, and the same every time."""

import base64
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_command
from html_page import Page
from report_files import change_results, make_workdir

from sweet_jax.report import files, format_summary, style, write_report

_RUN_AS_A_USER = """
import runpy, sys
sys.argv = ['sweet_jax', 'report', sys.argv[1]]
try:
    runpy.run_module('sweet_jax', run_name='__main__')
except SystemExit as done:
    assert done.code == 0, done.code
heavy = {'jax', 'jaxlib', 'flax', 'transformers', 'scipy', 'pandas'}
print('HEAVY', sorted(heavy & sys.modules.keys()))
rooms = {m.split('.')[1] for m in sys.modules if m.startswith('sweet_jax.')}
print('OURS', sorted(rooms))
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


def test_report_never_imports_jax(commanded: tuple[Path, str]):
    workdir, printed = commanded
    assert printed.startswith(format_summary(files.read_results(workdir)))
    assert f"\nwrote {workdir / 'report.html'}\n" in printed
    assert "HEAVY []" in printed
    # What every command has, and the report itself.
    assert "OURS ['commands', 'report', 'settings', 'system']" in printed


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


def test_output_belongs_to_comparisons(finished: Path, tmp_path: Path, capsys):
    assert run_command("report", str(finished), "--output", str(tmp_path / "out")) == 2
    assert re.fullmatch("error: --output belongs to .*\n", capsys.readouterr().err)
