"""What a model folder says of its model: the fields of model.json and their limits."""

import dataclasses
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from sweet_jax.exits.criteria import CRITERIA

SCHEMA = 1
# A layer, an exit or a length past these is no encoder's.
_Layer: TypeAlias = Annotated[int, Field(ge=0, lt=1000)]
_Length: TypeAlias = Annotated[int, Field(ge=1, le=1 << 24)]
_Count: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 48)]
# Within what float32 can divide by.
_Temperature: TypeAlias = Annotated[float, Field(gt=1e-30, lt=1e30)]
_Cost: TypeAlias = Annotated[float, Field(gt=0)]
_Chosen: TypeAlias = Annotated[float, Field(ge=-1, le=1e6)] | None
_CHOSEN = {"target", "threshold", "score", "accuracy", "cost_fraction", "oracle"}


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """What a model folder says of its model (model.json).

    Attributes:
        method: as shown to people, such as `sweet(a=0.2)`.
        task: name of the task it was trained on.
        metric: of its scores.
        label_names: name of each class.
        has_pairs: inputs are pairs of texts.
        exit_layers: the layer each exit reads.
        member_exits: the exits of each model trained on its own.
        shared_pooler: one pooler for all exits (faithful_release).
        separate_tables: each segment has its own copy of tables that layers share.
        pooling: `mean` or `cls`.
        dtype: computation type.
        matmul_precision: of jax, in training.
        ignore_attributes: of the encoder's config.json.
        max_length: longest input in tokens.
        buckets: lengths that batches are padded to.
        bucket_rows: calibration rows whose length falls into each bucket.
        temperatures: of each exit.
        lte_ranges: lowest and highest learning-to-exit score of each exit on the rows
            of the fit; () where no exit has a head for it.
        cost_fractions: of leaving at each exit.
        thresholds: criterion -> [{target, threshold, ...}], chosen on calibration; None
            where no threshold reaches the target, and for a threshold of infinity.
        digest: of the training settings and inputs.
        schema: of this description.
    """

    method: str
    task: str
    metric: Annotated[str, Field(pattern="^(accuracy|matthews|f1)$")]
    label_names: Annotated[tuple[str, ...], Field(min_length=2)]
    has_pairs: bool
    exit_layers: Annotated[tuple[_Layer, ...], Field(min_length=1)]
    member_exits: tuple[tuple[_Layer, ...], ...]
    shared_pooler: bool
    separate_tables: bool
    pooling: Annotated[str, Field(pattern="^(mean|cls)$")]
    dtype: Annotated[str, Field(pattern="^(float32|bfloat16)$")]
    matmul_precision: Annotated[str, Field(pattern="^(default|high|highest)$")]
    ignore_attributes: tuple[str, ...]
    max_length: _Length
    buckets: Annotated[tuple[_Length, ...], Field(min_length=1)]
    bucket_rows: tuple[_Count, ...]
    temperatures: tuple[_Temperature, ...]
    lte_ranges: tuple[tuple[float, float], ...]
    cost_fractions: tuple[_Cost, ...]
    thresholds: dict[str, list[dict[str, _Chosen]]]
    digest: str
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Raises ValueError where fields contradict each other."""
        num_exits = len(self.exit_layers)
        rows = [row for rows in self.thresholds.values() for row in rows]
        one_each = tuple((i,) for i in range(num_exits))
        fits = {
            "label_names": len({*self.label_names}) == len(self.label_names),
            "exit_layers": _is_rising(self.exit_layers),
            # One model with all exits, or one for each.
            "member_exits": self.member_exits in (one_each, (tuple(range(num_exits)),)),
            "temperatures": len(self.temperatures) == num_exits,
            "cost_fractions": len(self.cost_fractions) == num_exits
            and max(self.cost_fractions) <= num_exits,
            "lte_ranges": len(self.lte_ranges) in (0, num_exits)
            and all(low <= high for low, high in self.lte_ranges)
            and bool(np.isfinite(self.lte_ranges).all()),
            "buckets": _is_rising(self.buckets),
            "bucket_rows": len(self.bucket_rows) == len(self.buckets),
            "max_length": self.max_length <= self.buckets[-1],
            "thresholds": self.thresholds.keys() <= CRITERIA.keys()
            and all(row.keys() == _CHOSEN and (row["target"] or 0) > 0 for row in rows),
        }
        if wrong := [name for name, is_right in fits.items() if not is_right]:
            raise ValueError(
                f"{wrong[0]} is out of range or contradicts the other fields"
            )


def _is_rising(values: tuple[int, ...]) -> bool:
    return tuple(sorted({*values})) == values
