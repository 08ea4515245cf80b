"""What running a cascade took: exits, rows and tokens computed, latencies."""

import dataclasses
from collections import deque
from typing import Any

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass
class EngineStats:
    """What running a cascade took, summed over calls.

    Attributes:
        exit_counts: rows that left at each exit.
        rows_run: rows that each segment ran on.
        rows_padded: the same with the rows that only filled a bucket.
        tokens_run: real tokens of segment 0.
        tokens_padded: tokens of the shapes that segment 0 ran.
        flops: of all segments that ran, by XLA's analysis.
        seconds: of each row from entering to its answer, the latest 100,000.
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
        """Returns statistics of nothing yet."""
        exit_counts, rows_run, rows_padded = np.zeros((3, num_exits), np.int64)
        return cls(exit_counts, rows_run, rows_padded)

    def add(self, other: "EngineStats") -> None:
        """Adds what another call took."""
        self.exit_counts += other.exit_counts
        self.rows_run += other.rows_run
        self.rows_padded += other.rows_padded
        self.tokens_run += other.tokens_run
        self.tokens_padded += other.tokens_padded
        self.flops += other.flops
        self.seconds.extend(other.seconds)


def count_costs(exit_counts: np.ndarray, costs_E: np.ndarray) -> float:
    """Returns the mean cost fraction of rows that left so."""
    return float(exit_counts @ costs_E / max(exit_counts.sum(), 1))


def summarise(stats: EngineStats, costs_E: np.ndarray) -> dict[str, Any]:
    """Returns statistics as people read them.

    Args:
        stats: of an engine.
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
