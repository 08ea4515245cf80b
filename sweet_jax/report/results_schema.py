"""What results.json holds, as far as reports read it: the types of its fields.

Fields that are not listed are kept and harmless.
"""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from sweet_jax.system.files import FileError, check_as

# None where nothing was reached, such as a speed-up that no threshold gives.
_Number: TypeAlias = float | None
CLASS_SCORES = ("precision", "recall", "f1")


class ExitRow(TypedDict):
    """One exit alone, on all test rows."""

    exit: int
    layer: int
    score: float
    accuracy: float
    nll: float
    ece_before: float
    ece_after: float
    temperature: float
    cost_fraction: float
    lte_range: NotRequired[Annotated[list[float], Field(min_length=2, max_length=2)]]


class CurveRow(TypedDict):
    """The cascade at one threshold."""

    threshold: _Number
    score: _Number
    cost_fraction: _Number
    exit_counts: list[int]


class SpeedupRow(TypedDict):
    """The cascade at the threshold chosen for a target speed-up."""

    target: float
    threshold: _Number
    score: _Number
    cost_fraction: _Number
    oracle: _Number


class ExtraTest(TypedDict):
    """What is measured on a further test set."""

    exits: list[ExitRow]
    at_speedup: dict[str, list[SpeedupRow]]
    area: dict[str, _Number]


class OracleExit(TypedDict):
    """Leaving at the first exit that is right."""

    score: float
    cost_fraction: float


# `class` is a word of Python's.
ClassRow = TypedDict(
    "ClassRow",
    {
        "class": int,
        "examples": float,
        "precision": list[float],
        "recall": list[float],
        "f1": list[float],
    },
)


class SegmentRow(TypedDict):
    """What segments take at one length of inputs."""

    length: int
    milliseconds: list[float]


class Costs(TypedDict):
    """What the segments cost, in FLOPs and seconds."""

    flops: list[float]
    seconds: list[float]
    rows: int
    device: str
    segments: list[SegmentRow]


class BaselineRow(TypedDict):
    """A baseline on all test rows, and the kind of its model."""

    model: str
    score: float
    accuracy: float


class FrozenRow(BaselineRow):
    """A linear model of the frozen states that an exit reads."""

    exit: int
    layer: int


class Baselines(TypedDict):
    """Simple models of the same training rows, and the seconds of all of them."""

    majority: BaselineRow
    tfidf: BaselineRow
    frozen: list[FrozenRow]
    seconds: float


class ColumnsRead(TypedDict):
    """Where the rows were read from; empty where columns have no names."""

    text: list[str]
    label: str


class Seconds(TypedDict):
    """What the parts of a run took."""

    load: float
    compile: float
    train: float
    evaluate: float
    # The kept studies lack it.
    probe: NotRequired[float]


class Results(TypedDict):
    """results.json."""

    schema: int
    method: str
    method_label: str
    task: str
    metric: str
    encoder: str
    seed: int
    exit_layers: list[int]
    num_layers: int
    label_names: list[str]
    splits: dict[str, int]
    notes: list[str]
    majority: float
    full: float
    oracle_exit: OracleExit
    exits: list[ExitRow]
    curves: dict[str, list[CurveRow]]
    at_speedup: dict[str, list[SpeedupRow]]
    area: dict[str, _Number]
    faithful_release: bool
    cost_formula: str
    truncated_rows: dict[str, int]
    padded_over_real: float
    seconds: Seconds
    versions: dict[str, str]
    origin: dict[str, str]
    programs: dict[str, int]
    parameters: int
    training_flops: float
    training_temporary_bytes: int
    extra_tests: dict[str, ExtraTest]
    # The kept studies lack these.
    classes: NotRequired[list[ClassRow]]
    columns: NotRequired[ColumnsRead]
    costs: NotRequired[Costs | None]
    baselines: NotRequired[Baselines | None]
    analyses: NotRequired[dict[str, dict[str, Any]]]
    # Of an evaluation on other rows: what was evaluated.
    evaluation_digest: NotRequired[str]


def check_results(path: Path, results: dict[str, Any], remedy: str) -> None:
    """Checks what reports read of results.json.

    Args:
        path: of the file, for messages.
        results: its content.
        remedy: what a person can do about a damaged file.

    Raises:
        FileError: a field is missing, of another type, or contradicts another one.
    """
    check_as(results, Results, path, remedy)
    tests = {"": results, **results["extra_tests"]}
    num_exits = len(results["exit_layers"])
    criteria = results["curves"].keys()
    targets = None
    problem = None if criteria and num_exits else "it has no criteria or no exits"
    for measures in tests.values():
        if len(measures["exits"]) != num_exits:
            problem = "exits and exit_layers differ in number"
        if not measures["at_speedup"].keys() == criteria == measures["area"].keys():
            problem = "curves, at_speedup and area have other criteria"
        for rows in measures["at_speedup"].values():
            found = [row["target"] for row in rows]
            targets = found if targets is None else targets
            if found != targets or not all(target > 0 for target in found):
                problem = "at_speedup has other targets for another criterion"
    for rows in results["curves"].values():
        if not rows or any(len(row["exit_counts"]) != num_exits for row in rows):
            problem = "curves and exit_layers differ in number of exits"
    classes = results.get("classes")
    if classes is not None and (
        [row["class"] for row in classes] != [*range(len(results["label_names"]))]
        or any(len(row[k]) != num_exits for row in classes for k in CLASS_SCORES)
    ):
        problem = "classes, label_names and exit_layers differ in number"
    baselines = results.get("baselines")
    if baselines is not None and len(baselines["frozen"]) != num_exits:
        problem = "baselines and exit_layers differ in number of exits"
    costs = results.get("costs")
    if costs is not None and any(
        len(values) != num_exits
        for values in (
            costs["flops"],
            costs["seconds"],
            *(row["milliseconds"] for row in costs["segments"]),
        )
    ):
        problem = "costs and exit_layers differ in number of exits"
    if problem:
        raise FileError(f"{path} is damaged ({problem}): {remedy}")
