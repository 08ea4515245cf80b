"""What papa.json holds, as far as reports read it, and the paper's claims on it."""

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from sweet_jax.system.checksums import check_recorded
from sweet_jax.system.files import FileError, check_as, check_schema, read_object

RECORD = "papa.json"
SCHEMA = 1
# The paper's mean relative drop over six tasks with all heads constant.
PAPER_DROP = 0.08
_REMEDY = "repeat the command of the analysis, which makes it again"

Pair: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2)] | None


class PointRow(TypedDict):
    """Probes with k constant heads; intervals at 95 %, None with a single seed."""

    constant_heads: int
    dynamic_heads: int
    dynamic_by_layer: list[int]
    scores: list[float]
    score: float
    interval: Pair
    seed_interval: Pair
    loss: float
    loss_interval: Pair
    drop: float | None
    drop_interval: Pair
    drop_seed_interval: Pair


class CurveRows(TypedDict):
    """Points in one order of heads and with one kind of constants."""

    ranking: str
    constants: str
    points: Annotated[list[PointRow], Field(min_length=1)]


class RankingRows(TypedDict):
    """Scores of heads by layer, and their places in the order."""

    scores: list[list[float]]
    ranks: list[list[int]]


class PapaRecord(TypedDict):
    """papa.json."""

    schema: int
    digest: str
    task: str
    metric: str
    encoder: str
    family: str
    num_layers: Annotated[int, Field(ge=1)]
    num_heads: Annotated[int, Field(ge=1)]
    length: int
    layout: str
    faithful_release: bool
    seed: int
    seeds: Annotated[list[int], Field(min_length=1)]
    score_on: str
    rows: dict[str, int]
    majority: float
    curves: Annotated[list[CurveRows], Field(min_length=1)]
    rankings: dict[str, RankingRows]
    departures: list[str]
    notes: list[str]
    settings: dict[str, Any]
    seconds: dict[str, float]
    versions: dict[str, str]


def read_papa_record(folder: Path) -> dict[str, Any]:
    """Reads papa.json of a finished analysis.

    Raises:
        FileError: the folder holds no finished analysis, or the file is altered,
            damaged, of a newer schema, or contradicts itself.
    """
    path = folder / RECORD
    if not path.exists():
        raise FileError(
            f"{folder} holds no finished analysis (no {RECORD}): repeat its command"
        )
    check_recorded(folder, RECORD, _REMEDY)
    record = read_object(path, _REMEDY)
    check_schema(record, SCHEMA, path, _REMEDY)
    check_as(record, PapaRecord, path, _REMEDY)
    shape = (record["num_layers"], record["num_heads"])
    for ranking in record["rankings"].values():
        for rows in (ranking["scores"], ranking["ranks"]):
            if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
                raise FileError(f"{path} is damaged (a ranking of heads): {_REMEDY}")
    return record


def list_verdicts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns (claim, what this analysis says about it) for P1 to P3."""
    curve = record["curves"][0]
    total = record["num_layers"] * record["num_heads"]
    return [
        (
            "P1: with all heads constant, the mean relative drop is 8 %",
            _judge_all(_find(curve, total)),
        ),
        (
            "P2: with half of the heads constant, nearly nothing is lost",
            _judge_half(_find(curve, total - total // 2)),
        ),
        (
            "P3: encoders with a better score lose more",
            "Not measured: this is one encoder. It takes several, four or more.",
        ),
    ]


def _find(curve: dict[str, Any], num_constant: int) -> dict[str, Any] | None:
    points = [p for p in curve["points"] if p["constant_heads"] == num_constant]
    return points[0] if points else None


def _judge_all(point: dict[str, Any] | None) -> str:
    if point is None:
        return "Not measured: no point has all heads constant."
    if point["drop"] is None:
        return (
            f"The score falls by {point['loss']:.3f}"
            f"{_show(point['loss_interval'], False)}; a relative drop is not defined,"
            " because the score without constant heads may be 0 or less."
        )
    text = f"The relative drop is {point['drop']:.1%}"
    text += f"{_show(point['drop_interval'], True)}. "
    interval = point["drop_interval"]
    if interval is None:
        return text + "One seed has no interval: no verdict."
    low, high = interval
    where = "within the interval: they do not contradict each other"
    if low > PAPER_DROP:
        where = "below the interval: more is lost here"
    elif high < PAPER_DROP:
        where = "above the interval: less is lost here"
    return (
        f"{text}The paper's 8 % lies {where}. It is a mean over six tasks; this is one"
        " task and one encoder."
    )


def _judge_half(point: dict[str, Any] | None) -> str:
    if point is None:
        return "Not measured: no point has half of the heads constant."
    relative = point["drop"] is not None
    value, interval = (
        (point["drop"], point["drop_interval"])
        if relative
        else (point["loss"], point["loss_interval"])
    )
    shown = f"{value:.1%}" if relative else f"{value:.3f}"
    what = "relative drop" if relative else "loss in score"
    text = f"The {what} is {shown}{_show(interval, relative)}. "
    if interval is None:
        return text + "One seed has no interval: no verdict."
    low, high = interval
    bound = f"{high:.1%}" if relative else f"{high:.3f}"
    if low > 0:
        return text + f"Something is lost, at most {bound}."
    if high < 0:
        return text + "Nothing is lost; the score rises."
    return text + f"No loss is shown; it is at most {bound}."


def _show(interval: list[float] | None, is_share: bool) -> str:
    if interval is None:
        return ""
    if not is_share:
        return f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    return f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})"
