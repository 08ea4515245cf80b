"""docs/extending.md as it stands: one of each from outside, in one run, and served."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sweet_jax
from sweet_jax.evaluation.metrics import check_metric
from sweet_jax.exits.criteria import compute_scores
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.usefixtures("registries")


@pytest.fixture
def names() -> dict[str, Any]:
    """Runs the examples of the page; returns what they define."""
    names: dict[str, Any] = {"__name__": "example"}
    for block in BLOCKS:
        exec(block, names)
    return names


def test_every_kind_has_an_example_of_a_screen():
    kinds = {"method", "criterion", "metric", "source", "analysis", "backend"}
    registered = re.findall(r"@sweet_jax\.register_(\w+)\(", PAGE)
    assert {*registered} == kinds
    for kind in kinds:
        assert hasattr(sweet_jax, f"register_{kind}")
    # A method, a criterion: what a stranger types fits on a screen.
    assert max(block.count("\n") for block in BLOCKS) < 50


@pytest.mark.slow
def test_one_run_uses_one_of_each(
    names, tiny_encoder, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    settings = from_config_dict(
        {
            "method": "last_two",
            "encoder": {"name": str(tiny_encoder)},
            "exits": {"layers": (0, 1)},
            "data": {
                "task": "reviews/new",
                "metric": "kappa",
                "calibration_examples": 16,
                "max_length": 16,
                "buckets": (16,),
            },
            "train": {"batch_size": 8, "num_epochs": 1},
            "evaluate": {
                "criteria": ("gini", "margin"),
                "batch_size": 16,
                "measure_costs": False,
                "speedups": (1.0, 1.5),
            },
            "analysis": {"names": ("weight_norm",)},
        }
    )
    workdir, results = pipeline.run(settings, tmp_path / "run", True)
    assert (results["method"], results["metric"]) == ("last_two", "kappa")
    assert results["task"] == "reviews/new"
    assert list(results["curves"]) == ["gini", "margin"]
    assert results["splits"]["test"] == 20
    assert results["analyses"]["weight_norm"].keys() == {"@0", "@4"}
    assert results["label_names"] == ["negative", "positive"]
    page = (workdir / "report.html").read_text()
    assert all(text in page for text in ("gini", "kappa", "weight_norm"))

    classifier = sweet_jax.load(workdir / "model", batch_size=4, backend="counted")
    assert type(classifier.engine.segments) is names["CountedSegments"]
    texts = [f"good film {i}" for i in range(9)]
    answers = classifier.predict(texts, criterion="gini", threshold=0.6)
    assert {answer.label for answer in answers} <= {"negative", "positive"}
    early = sum(answer.exit == 0 for answer in answers)
    ran = classifier.engine.segments.rows_run
    assert ran[0] >= 9
    assert bool(ran[1]) == (early < 9)
    # The same decisions as the scores of the evaluator.
    scores = classifier.score(classifier.make_examples(texts), "gini")
    assert [a.exit == 0 for a in answers] == (scores[:, 0] >= 0.6).tolist()
    # Best within the cost, by the metric; the sum of what the page says of it.
    answers = classifier.predict(texts, criterion="gini", speedup=1.0, choose="score")
    assert len(answers) == 9
    check_metric("neg_log_loss", 3, "mnli")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with the page's examples, that nobody imports."""
    groups = dict(re.findall(r'entry-points\."(sweet_jax\.\w+)"\]\n +(.*)', PAGE))
    assert groups.keys() == {"sweet_jax.methods", "sweet_jax.criteria"}
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\n")
    entries = "\n".join(f"[{group}]\n{line}" for group, line in groups.items())
    entries = entries.replace('"', "")  # as pip writes them
    (info / "entry_points.txt").write_text(entries)
    (tmp_path / "my_package").mkdir()
    for module, text in (("methods", "last_two"), ("criteria", '"gini"')):
        (block,) = (block for block in BLOCKS if text in block)
        (tmp_path / "my_package" / f"{module}.py").write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_entry_points_of_the_page_are_found(rng):
    settings = from_config_dict(
        {"method": "last_two", "evaluate": {"criteria": ["gini"]}}
    )
    assert settings.method == "last_two"
    assert "my_package.criteria" not in sys.modules
    assert compute_scores("gini", rng.normal(size=(3, 2, 4))).shape == (3, 2)
    assert "my_package.criteria" in sys.modules
