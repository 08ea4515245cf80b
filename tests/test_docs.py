"""Pages: their links lead somewhere, their examples run, the citation can be read."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from study_files import make_study

from sweet_jax.study.outputs import write_study

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    paths = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in paths if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_index():
    text = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in text} == set()
    assert "](docs/README.md)" in (ROOT / "README.md").read_text()


def run_blocks(page: str, containing: str) -> dict[str, object]:
    """Runs the only Python example of a page with some text; returns its names."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    [block] = [block for block in blocks if containing in block]
    names: dict[str, object] = {}
    exec(block, names)
    return names


def test_the_table_of_a_study_is_read_as_shown(tmp_path, monkeypatch, capsys):
    write_study(make_study(tmp_path, ("sweet", "early_exit"), seeds=(0, 1)))
    monkeypatch.chdir(tmp_path)
    names = run_blocks("docs/research.md", "study.csv")
    assert isinstance(names["table"], pd.DataFrame)
    assert "early_exit" in capsys.readouterr().out
    # Every measure of the table is explained, and no other.
    text = (ROOT / "docs" / "research.md").read_text()
    rows = text.partition("| measure | of |")[2].partition("\n\n")[0].splitlines()[2:]
    told = {name for row in rows for name in re.findall("`(.*?)`", row.split("|")[1])}
    assert told == set(names["table"]["measure"])


def test_logits_from_elsewhere_have_curves_as_shown(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    logits = rng.normal(size=(400, 4, 3))
    logits[np.arange(400), :, labels] += np.linspace(0.5, 2, 4)
    np.savez(tmp_path / "logits.npz", logits=logits, labels=labels)
    monkeypatch.chdir(tmp_path)
    curve = run_blocks("docs/research.md", "logits.npz")["curve"]
    # Every row at the first exit, and every row at the last, on the odd rows.
    right = (logits.argmax(axis=2) == labels[:, None])[1::2].mean(axis=0)
    np.testing.assert_allclose(curve.score[[0, -1]], right[[0, -1]], atol=1e-6)
    np.testing.assert_allclose(curve.cost_fraction[[0, -1]], [1 / 12, 1])
    area, at_cost = capsys.readouterr().out.strip().split("\n")
    assert right[0] < float(area) < curve.score.max()
    assert len(at_cost.strip("[]").split()) == 4


def test_the_citation_has_what_the_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    sweet, (papa,) = citation["preferred-citation"], citation["references"]
    for paper in (sweet, papa):
        assert {"type", "title", "authors", "conference", "year"} <= paper.keys()
        assert paper["conference"]["name"]
        assert all(set(a) == {"given-names", "family-names"} for a in paper["authors"])
