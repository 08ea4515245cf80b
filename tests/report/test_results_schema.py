"""results.json: fields that contradict each other are one line, whoever wrote them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_files import make_study

from sweet_jax.report.results_schema import check_results
from sweet_jax.system.files import FileError


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_study(tmp_path_factory.mktemp("s"), ("sweet",), seeds=(0,))
    [path] = folder.glob("cells/*/results.json")
    results = json.loads(path.read_text())
    row = {"model": "ridge", "score": 0.5, "accuracy": 0.5}
    frozen = [{**row, "exit": e["exit"], "layer": e["layer"]} for e in results["exits"]]
    results["baselines"] = {
        "majority": dict(row), "tfidf": row, "frozen": frozen, "seconds": 3.0
    }  # fmt: skip
    return results


def drop_criterion(r: dict[str, Any]) -> None:
    del r["area"]["patience"]


def change_target(r: dict[str, Any]) -> None:
    r["at_speedup"]["patience"][0]["target"] = 7.0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: r["exits"].pop(), "exits and exit_layers differ in number"),
        (drop_criterion, "curves, at_speedup and area have other criteria"),
        (change_target, "at_speedup has other targets for another criterion"),
        (lambda r: r["curves"].clear(), "curves, at_speedup and area|no criteria"),
        (lambda r: r["baselines"]["frozen"].pop(), "baselines and exit_layers differ"),
        (lambda r: r["baselines"]["majority"].pop("accuracy"), "majority.accuracy"),
        (lambda r: r["exits"][0].update(lte_range=[0.1]), "exits.0.lte_range"),
        (lambda r: r.update(training_flops="many"), "training_flops"),
        (lambda r: r["exits"][0].pop("nll"), "exits.0.nll: Field required"),
    ],
)
def test_what_contradicts_itself_is_one_line(
    results: dict[str, Any], change: Callable[[dict[str, Any]], Any], error: str
):
    check_results(Path("results.json"), results, "repeat it")
    changed = copy.deepcopy(results)
    change(changed)
    with pytest.raises(FileError, match=error) as told:
        check_results(Path("results.json"), changed, "repeat it")
    assert "\n" not in str(told.value)
