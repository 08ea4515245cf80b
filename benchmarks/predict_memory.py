"""Peak memory and rate of the predict command on short and on long inputs.

    python benchmarks/predict_memory.py [ROWS ...]

Each number of rows (default: 10,000 and 1,000,000) is a file of short lines, predicted
in a separate process. The model has 2 layers, width 32 and random weights, so that its
own cost is negligible.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import print_header, print_row
from tiny_model import write_lines, write_tiny_model

_BATCH = 128


def main() -> None:
    """Prints a row per number of rows, and the ratio of the last peak to the first."""
    counts = [int(word) for word in sys.argv[1:]] or [10_000, 1_000_000]
    print_header("rows", "peak RSS in MiB", "seconds", "rows/s")
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_tiny_model(folder / "model")
        # The first run fills the compilation cache for the others.
        for count in [counts[0], *counts]:
            source = write_lines(folder / "lines.txt", count)
            child = subprocess.run(
                [sys.executable, __file__, "--child", str(model), str(source)],
                stdout=subprocess.PIPE,
                check=True,
            )
            peak, seconds = json.loads(child.stdout)
            peaks.append(peak)
            if len(peaks) > 1:
                rate = f"{count / seconds:.0f}"
                print_row(count, f"{peak:.0f}", f"{seconds:.1f}", rate)
    print(f"\npeak of the last / peak of the first: {peaks[-1] / peaks[1]:.3f}")


def run_child(model: str, source: str) -> None:
    """Predicts a file; prints peak RSS in MiB and the seconds of the job."""
    import sweet_jax
    from sweet_jax.devices import configure_jax
    from sweet_jax.serving.predict_job import predict_file
    from sweet_jax.serving.predict_options import PredictOptions

    classifier = sweet_jax.load(model, _BATCH)
    configure_jax(classifier.description.matmul_precision)
    # Compile all possible shapes first: longer inputs use more of them, and compilation
    # needs memory for a moment.
    classifier.engine.warm_up()
    with tempfile.TemporaryDirectory() as name:
        options = PredictOptions(source, Path(name) / "answers.jsonl", threshold=0.8)
        start = time.perf_counter()
        predict_file(classifier, options)
        seconds = time.perf_counter() - start
    # Linux counts in KiB, macOS in bytes.
    unit = 1 << (20 if sys.platform == "darwin" else 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps([peak, seconds]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(*sys.argv[2:])
    else:
        main()
