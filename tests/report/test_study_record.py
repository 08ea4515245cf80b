"""study.json is read strictly, and its names do no harm."""

import json
from pathlib import Path

from command_line import run_command
from study_files import (
    aggregate,
    make_study,
    write_plan,
    write_status,
)
from study_records import make_rates

from sweet_jax.report import (
    format_study,
)


def test_names_never_command_a_terminal(tmp_path: Path, capsys):
    evil = "\x1b]0;owned\x07\x9b31m\u202e\r\n# "
    shown = r"\x1b]0;owned\x07\x9b31m\u202e\r\n# "
    methods = ("early_exit", f"sweet(a={evil})")
    folder = make_study(tmp_path / "s", methods, seeds=(0, 1), tasks=(f"t{evil}",))
    cells = json.loads((folder / "plan.json").read_text())["cells"]
    for path in (folder / "cells").glob("*-early_exit-s1-*"):
        # Half of a character in two is no text at all.
        write_status(path, "failed", f"no {evil}\ud800")
    names = {"task": evil, "encoder": evil, "train_size": 1, "method": evil}
    write_plan(folder, cells, [{**names, "tried": [], "chosen": make_rates(1e-4)}])
    aggregated = aggregate(folder, 20)
    assert run_command("study", str(folder)) == 0
    summary, _, _ = capsys.readouterr().out.partition("\nwrote")
    files = [folder / name for name in ("study.json", "study.md", "study.html")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    for text in (*texts, summary, format_study(aggregated)):
        assert all(c.isprintable() or c == "\n" for c in text)
    for text in (texts[1], summary):
        assert f"sweet(a={shown}) - early_exit" in text
    assert max(map(len, summary.splitlines())) <= 100
