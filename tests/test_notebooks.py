"""Notebooks run from their first cell to their last."""

from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in NOTEBOOKS.glob("*.py")))
def test_a_notebook_runs_and_shows_results(name, tmp_path, shared_cache, monkeypatch):
    # Imported here: without these the test fails, and the fast tests run all the same.
    import jupytext
    from nbclient import NotebookClient

    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    # The tests' several devices would share the cores of one.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = jupytext.read(NOTEBOOKS / name)
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    shown = [output for cell in notebook.cells for output in find_outputs(cell)]
    pages = [o.data["text/html"] for o in shown if "text/html" in o.get("data", {})]
    assert any("Accuracy" in page for page in pages)
    assert any("<iframe" in page for page in pages)
    printed = "".join(o.text for o in shown if o.output_type == "stream")
    assert "step" in printed, "no progress was shown"
    assert not [o for o in shown if o.output_type == "error"]
    assert (tmp_path / "messages.csv").exists()
    assert len(list((tmp_path / "runs").iterdir())) == 1


def find_outputs(cell: Any) -> list[Any]:
    return cell.outputs if cell.cell_type == "code" else []
