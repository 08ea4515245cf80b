"""Statistics of running a cascade: exits, rows and tokens computed, latencies."""

import dataclasses
from collections import deque
from typing import Any

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass
class EngineStats:
    """Statistics of running a cascade, summed over calls.

    Attributes:
        exit_counts: number of rows that left at each exit.
        rows_run: number of rows that each segment ran on.
        rows_padded: the same, padding rows included; of packed rows, all tokens of a
            batch divided by the mean length of its texts.
        tokens_run: number of tokens in segment 0, without padding.
        tokens_padded: the same, padding included.
        flops: FLOPs of all segments that ran, by XLA's analysis.
        seconds: latency of each row, of the latest 100,000 rows.
    """

    exit_counts: Int64[np.ndarray, " E"]
    rows_run: Int64[np.ndarray, " E"]
    rows_padded: Int64[np.ndarray, " E"]
    tokens_run: int = 0
    tokens_padded: int = 0
    flops: float = 0.0
    seconds: deque[float] = dataclasses.field(
        default_factory=lambda: deque(maxlen=100_000)
    )

    @classmethod
    def make(cls, num_exits: int) -> "EngineStats":
        """Returns statistics that start at zero."""
        exit_counts, rows_run, rows_padded = np.zeros((3, num_exits), np.int64)
        return cls(exit_counts, rows_run, rows_padded)

    def add(self, other: "EngineStats") -> None:
        """Adds the statistics of another call."""
        self.exit_counts += other.exit_counts
        self.rows_run += other.rows_run
        self.rows_padded += other.rows_padded
        self.tokens_run += other.tokens_run
        self.tokens_padded += other.tokens_padded
        self.flops += other.flops
        self.seconds.extend(other.seconds)


def count_costs(exit_counts: np.ndarray, costs_E: np.ndarray) -> float:
    """Returns the mean cost fraction of rows with these exit counts."""
    return float(exit_counts @ costs_E / max(exit_counts.sum(), 1))


def summarise(stats: EngineStats, costs_E: np.ndarray) -> dict[str, Any]:
    """Returns the statistics as a dict for output.

    Args:
        stats: statistics of an engine.
        costs_E: cost of leaving at each exit, relative to the full model.
    """
    seconds = np.array(stats.seconds) if stats.seconds else np.full(1, np.nan)
    return {
        "rows": int(stats.exit_counts.sum()),
        "exit_counts": stats.exit_counts.tolist(),
        "cost_fraction": count_costs(stats.exit_counts, costs_E),
        "row_filling": float(stats.rows_padded.sum() / max(stats.rows_run.sum(), 1)),
        "flops": stats.flops,
        "padded_over_real": stats.tokens_padded / max(stats.tokens_run, 1),
        "latency_p50_ms": float(np.percentile(seconds, 50) * 1000),
        "latency_p95_ms": float(np.percentile(seconds, 95) * 1000),
    }
