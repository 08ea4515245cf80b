"""CPU time from text to label: packed rows against one text a row.

    python benchmarks/packing.py --model=RUN/model [--rows=512] [--batch_size=32]
        [--rounds=5] [--speedups 2 3]

RUN is a finished run, whose test rows are read. One text a row is padded to the run's
length buckets, or to lengths in steps of 8. Everything runs on one core, in turns; the
ratio is the median over rounds of a round's time by that of the run's buckets.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from measuring import print_header, print_row

import sweet_jax
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.engine.engine import Engine
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import Shapes
from sweet_jax.runs.workdir import read_settings
from sweet_jax.settings.from_config import from_config_dict


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speedups", type=float, nargs="*", default=[2.0, 3.0])
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = from_config_dict(read_settings(options.model.parent))
    rows = make_splits(load_task(settings.data), settings).test
    # Spread over the split, whose rows may be sorted by label.
    chosen = np.linspace(0, len(rows) - 1, options.rows).astype(int)
    texts = [rows.texts[i] for i in chosen]
    packed, buckets, steps = (
        sweet_jax.load(options.model, options.batch_size) for _ in range(3)
    )
    shapes = packed.engine.shapes
    longest = shapes.lengths[-1]
    lengths = {buckets: shapes.lengths, steps: (*range(8, longest, 8), longest)}
    for classifier, chosen_lengths in lengths.items():
        segments = classifier.engine.segments
        assert isinstance(segments, Segments), "only jax packs rows"
        segments.packed = None
        classifier.engine = Engine(
            segments, Shapes(options.batch_size, chosen_lengths, shapes.pad_id)
        )
    contest = {"length buckets": buckets, "steps of 8": steps, "packed": packed}
    print_header(
        f"{options.rows} rows, batch size {options.batch_size}",
        *("CPU seconds", "ratio", "tokens computed / real", "programs"),
    )
    for speedup in (None, *options.speedups):
        seconds: dict[str, list[float]] = {name: [] for name in contest}
        for measured in (False, *[True] * options.rounds):
            for name, classifier in contest.items():
                start = time.process_time()
                classifier.predict(texts, speedup=speedup)
                if measured:
                    seconds[name].append(time.process_time() - start)
        for name, classifier in contest.items():
            stats = classifier.stats
            ratios = np.array(seconds[name]) / seconds["length buckets"]
            print_row(
                f"{name}, {f'{speedup:g}x' if speedup else 'full depth'}",
                f"{statistics.median(seconds[name]):.3f}",
                f"{statistics.median(ratios.tolist()):.3f}",
                f"{stats['padded_over_real']:.3f}",
                stats["programs"],
            )


if __name__ == "__main__":
    main()
