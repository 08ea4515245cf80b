"""The description of a model: the fields of model.json and their limits."""

import dataclasses
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from sweet_jax.data.find_columns import LONGEST_NAME
from sweet_jax.settings.registries import CRITERIA, METRICS
from sweet_jax.system.registry import describe_unknown

SCHEMA = 1
# Upper limits beyond any encoder's layers, exits and lengths.
_Layer: TypeAlias = Annotated[int, Field(ge=0, lt=1000)]
_Length: TypeAlias = Annotated[int, Field(ge=1, le=1 << 24)]
_Count: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 48)]
# Within what float32 can divide by.
_Temperature: TypeAlias = Annotated[float, Field(gt=1e-30, lt=1e30)]
_Cost: TypeAlias = Annotated[float, Field(gt=0)]
_Chosen: TypeAlias = Annotated[float, Field(ge=-1e6, le=1e6)] | None
_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_CHOSEN = {"target", "threshold", "score", "accuracy", "cost_fraction", "oracle"}


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """The description of a model (model.json).

    Attributes:
        method: label of the method, such as `sweet(a=0.2)`.
        task: name of the task it was trained on.
        metric: name of the metric.
        label_names: name of each class.
        has_pairs: whether inputs are pairs of texts.
        text_columns: one or two columns of its training texts; () if they had no names.
        label_column: column of the training labels; empty if it had no name.
        exit_layers: the layer each exit reads.
        member_exits: the exits of each model that was trained separately.
        shared_pooler: whether all exits share one pooler (faithful_release).
        separate_tables: whether each segment has its own copy of tables that layers
            share.
        pooling: `mean` or `cls`.
        dtype: computation type.
        matmul_precision: jax's matmul precision in training.
        ignore_attributes: ignored attributes of the encoder's config.json.
        max_length: longest input in tokens.
        buckets: lengths that batches are padded to.
        bucket_rows: number of calibration rows in each bucket of lengths.
        temperatures: temperature of each exit.
        lte_ranges: lowest and highest learning-to-exit score of each exit on the rows
            used for fitting; () if exits do not learn to exit.
        cost_fractions: cost of leaving at each exit.
        thresholds: criterion -> [{target, threshold, ...}], chosen on calibration rows;
            None if no threshold reaches the target, and for an infinite threshold.
        digest: digest of the training settings and inputs.
        schema: version of this description.
    """

    method: str
    task: str
    metric: str
    label_names: Annotated[tuple[str, ...], Field(min_length=2)]
    has_pairs: bool
    text_columns: tuple[_Name, ...]
    label_column: Annotated[str, Field(max_length=LONGEST_NAME)]
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

    def check_names(self) -> None:
        """Raises ValueError if a metric or a criterion is not registered."""
        for registry, names in ((METRICS, [self.metric]), (CRITERIA, self.thresholds)):
            for name in names:
                if name not in registry:
                    line = describe_unknown(registry.kind, name[:100], registry.names())
                    raise ValueError(
                        f"{line}; if another package registers it, import that first"
                    )

    def __post_init__(self) -> None:
        """Raises ValueError if fields contradict each other."""
        num_exits = len(self.exit_layers)
        rows = [row for rows in self.thresholds.values() for row in rows]
        one_each = tuple((i,) for i in range(num_exits))
        fits = {
            "label_names": len({*self.label_names}) == len(self.label_names),
            "text_columns": len(self.text_columns) in (0, 1 + self.has_pairs)
            and len({*self.text_columns, self.label_column})
            == len(self.text_columns) + 1,
            "exit_layers": _is_rising(self.exit_layers),
            # One model with all exits, or one model per exit.
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
            "thresholds": all(
                row.keys() == _CHOSEN and (row["target"] or 0) > 0 for row in rows
            ),
        }
        if wrong := [name for name, is_right in fits.items() if not is_right]:
            raise ValueError(
                f"{wrong[0]} is out of range or contradicts the other fields"
            )


def _is_rising(values: tuple[int, ...]) -> bool:
    return tuple(sorted({*values})) == values
