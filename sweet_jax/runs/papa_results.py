"""Makes papa.json: scores with intervals, relative drops, rankings, departures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sweet_jax.analysis.papa.heads import sort_heads
from sweet_jax.evaluation.metrics import reads_rows, score_predictions
from sweet_jax.evaluation.statistics import (
    NUM_DRAWS,
    NUM_SLOW_DRAWS,
    Interval,
    RowDraws,
    resample_scores,
    student_interval,
    two_level_interval,
)
from sweet_jax.runs.papa_inputs import PapaInputs
from sweet_jax.runs.workdir import collect_versions

SCHEMA = 1


class Point(NamedTuple):
    """A point of the figure.

    Attributes:
        name: of its file.
        num_constant: k.
        dynamic_IH: which heads keep their own attention.
        constants: the kind of constants of the others.
    """

    name: str
    num_constant: int
    dynamic_IH: Bool[np.ndarray, "I H"]
    constants: str


class Curve(NamedTuple):
    """Points from no constant head on, in one order and with one kind of constants."""

    ranking: str
    constants: str
    points: tuple[Point, ...]


class _Scores(NamedTuple):
    """Scores of a point per seed, and on bootstrapped rows."""

    values_S: Float[np.ndarray, " S"]
    draws_BS: Float[np.ndarray, "B S"]


def make_record(
    inputs: PapaInputs,
    digest: str,
    curves: Sequence[Curve],
    logits: Mapping[str, Float[np.ndarray, "S N C"]],
    rankings: Mapping[str, Float[np.ndarray, "I H"]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Returns the content of papa.json (`report.papa_record` lists its fields).

    Args:
        inputs: the inputs.
        digest: of everything that the results depend on.
        curves: what was measured.
        logits: name of a point -> logits of its probes on the scored rows.
        rankings: name -> scores of heads.
        seconds: time of each step.
    """
    papa, settings = inputs.papa, inputs.settings
    scores = _score_points(inputs, logits)
    counts_C = np.bincount(inputs.train.labels, minlength=inputs.num_classes)
    labels_N = inputs.scored.labels
    majority = np.full(len(labels_N), counts_C.argmax())
    return {
        "schema": SCHEMA,
        "digest": digest,
        "task": settings.data.task,
        "metric": inputs.raw.task.metric,
        "encoder": settings.encoder.name,
        "family": inputs.config.family,
        "num_layers": inputs.frozen.num_layers,
        "num_heads": inputs.frozen.num_heads,
        "length": papa.length,
        "layout": inputs.layout.name,
        "faithful_release": papa.faithful_release,
        "seed": settings.seed,
        "seeds": list(papa.seeds),
        "score_on": papa.score_on,
        "rows": {"train": inputs.train.num_rows, "scored": inputs.scored.num_rows},
        "majority": score_predictions(
            inputs.raw.task.metric,
            labels_N,
            majority,
            None,
            np.log(np.eye(inputs.num_classes)[majority] + 1e-9),
        ),
        "curves": [_describe_curve(curve, scores) for curve in curves],
        "rankings": {
            name: {
                "scores": scores_IH.tolist(),
                "ranks": _find_ranks(scores_IH).tolist(),
            }
            for name, scores_IH in rankings.items()
        },
        "departures": list_departures(inputs),
        "notes": list(inputs.notes),
        "settings": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(papa).items()
        },
        "seconds": dict(seconds),
        "versions": collect_versions(),
    }


def list_departures(inputs: PapaInputs) -> list[str]:
    """Returns what differs from the released code, for readers of the results."""
    papa = inputs.papa
    found = []
    if not papa.faithful_release:
        found += [
            "no dropout in the frozen encoder (the released code leaves it in train"
            " mode)",
            "texts are cut once, each to its own part of the row; a single text uses"
            f" all {papa.length} slots (released: {papa.length // 2})",
            "type ids follow the moved tokens",
        ]
        if inputs.config.family == "roberta":
            found.append("position ids count slots (released: real tokens)")
    if papa.states == "kept":
        found.append(
            "frozen states of the training rows are computed once for each number of"
            " constant heads and kept (the same probes as without, since the encoder"
            " has no dropout)"
        )
    released = (("batch_size", 16), ("num_epochs", 15), ("ranking_epochs", 15))
    rates = (("learning_rate", 2e-5), ("gate_learning_rate", 2e-5))
    for name, value in (*released, *rates):
        if getattr(papa, name) != value:
            found.append(
                f"papa.{name} is {getattr(papa, name):g} (released: {value:g})"
            )
    return found


def _score_points(
    inputs: PapaInputs, logits: Mapping[str, Float[np.ndarray, "S N C"]]
) -> dict[str, _Scores]:
    """Returns the scores of every point, all on the same draws of rows."""
    metric, labels_N = inputs.raw.task.metric, inputs.scored.labels
    draws = RowDraws.make(
        len(labels_N),
        np.random.default_rng(0),
        NUM_SLOW_DRAWS if reads_rows(metric) else NUM_DRAWS,
    )
    ones_N = np.ones(len(labels_N))
    found = {}
    for name, logits_SNC in logits.items():
        predictions_SN = logits_SNC.argmax(axis=2)
        values = [
            score_predictions(metric, labels_N, predictions_N, None, logits_NC)
            for predictions_N, logits_NC in zip(predictions_SN, logits_SNC, strict=True)
        ]
        draws_BS = resample_scores(
            metric,
            draws,
            labels_N,
            predictions_SN.T,
            ones_N,
            inputs.num_classes,
            lambda s, logits_SNC=logits_SNC: logits_SNC[s],
        )
        found[name] = _Scores(np.array(values), draws_BS)
    return found


def _describe_curve(curve: Curve, scores: Mapping[str, _Scores]) -> dict[str, Any]:
    whole = scores[curve.points[0].name]
    assert curve.points[0].num_constant == 0
    return {
        "ranking": curve.ranking,
        "constants": curve.constants,
        "points": [
            {
                "constant_heads": point.num_constant,
                "dynamic_heads": int(point.dynamic_IH.sum()),
                "dynamic_by_layer": point.dynamic_IH.sum(axis=1).tolist(),
                **_compare(scores[point.name], whole),
            }
            for point in curve.points
        ],
    }


def _compare(scores: _Scores, whole: _Scores) -> dict[str, Any]:
    """Returns score, loss and relative drop, each with its two intervals.

    All are paired: seed by seed, and on the same draws of rows. `interval` is for new
    seeds and rows, `seed_interval` for new seeds on these rows.
    """
    loss = _Scores(whole.values_S - scores.values_S, whole.draws_BS - scores.draws_BS)
    fields = {
        "scores": scores.values_S.tolist(),
        "score": float(scores.values_S.mean()),
        "interval": _list(two_level_interval(*scores)),
        "seed_interval": _list(student_interval(scores.values_S)),
        "loss": float(loss.values_S.mean()),
        "loss_interval": _list(two_level_interval(*loss)),
        "drop": None,
        "drop_interval": None,
        "drop_seed_interval": None,
    }
    # A share of a score that may be 0 or less says nothing (Matthews correlation).
    if min(whole.values_S.min(), whole.draws_BS.min()) > 0:
        drop = _Scores(loss.values_S / whole.values_S, loss.draws_BS / whole.draws_BS)
        fields |= {
            "drop": float(drop.values_S.mean()),
            "drop_interval": _list(two_level_interval(*drop)),
            "drop_seed_interval": _list(student_interval(drop.values_S)),
        }
    return fields


def _list(interval: Interval | None) -> list[float] | None:
    if interval is None or not all(map(math.isfinite, interval)):
        return None
    return list(interval)


def _find_ranks(scores_IH: Float[np.ndarray, "I H"]) -> np.ndarray:
    """Returns the place of each head in the order: 0 becomes constant first."""
    ranks_P = np.empty(scores_IH.size, np.int64)
    ranks_P[sort_heads(scores_IH)] = np.arange(scores_IH.size)
    return ranks_P.reshape(scores_IH.shape)
