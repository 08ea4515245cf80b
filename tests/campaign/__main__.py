"""The command line of the attacks; see the package."""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).parents[2]
sys.path[:1] = [str(_ROOT / "tests"), str(_ROOT)]


def main() -> int:
    """Runs the attacks that are asked for; returns 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python tests/campaign")
    parser.add_argument("attack", choices=("fuzz",))
    parser.add_argument("--reader", help="one of the readers; default: all")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["SWEET_JAX_CACHE"] = str(root / "cache")
        # Imported here: jax reads the environment.
        from campaign.fuzz import run_trials
        from campaign.readers import READERS
        from campaign.seeds import make_seeds

        seeds = make_seeds(root / "seeds")
        is_good = True
        print("| reader | trials | read | refused | slowest | faults |")
        print("| :--- | ---: | ---: | ---: | ---: | ---: |")
        for reader in READERS.values():
            if options.reader not in (None, reader.name):
                continue
            scratch = root / "scratch"
            scratch.mkdir(exist_ok=True)
            counts: Counter[str] = Counter()
            slowest = 0.0
            for trial in run_trials(
                reader, seeds, scratch, options.first, options.trials
            ):
                counts[trial.outcome if trial.is_good else "faults"] += 1
                slowest = max(slowest, trial.seconds)
                if not trial.is_good or options.trials == 1:
                    print(
                        f"{reader.name} {trial.number}: {trial.change}:"
                        f" {trial.outcome}: {trial.line[:300]}",
                        file=sys.stderr,
                    )
            print(
                f"| {reader.name} | {counts.total()} | {counts['read']} |"
                f" {counts['refused']} | {slowest:.1f} s | {counts['faults']} |",
                flush=True,
            )
            is_good &= not counts["faults"]
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
