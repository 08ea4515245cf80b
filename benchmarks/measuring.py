"""Timing and printing for all benchmarks."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def time_median(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Returns the median seconds of a call after warm-up, and its last result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def print_header(*cells: str) -> None:
    """Prints the head of a Markdown table."""
    print_row(*cells)
    print_row(*["---"] * len(cells))


def print_row(*cells: object) -> None:
    """Prints a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
