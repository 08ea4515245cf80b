"""The command line of the attacks; see the package."""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "reliability.md"
sys.path[:1] = [str(_ROOT / "tests"), str(_ROOT)]


def main() -> int:
    """Runs an attack; returns 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python tests/campaign")
    parser.add_argument("attack", choices=tuple(_ATTACKS))
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first trial"
    )
    parser.add_argument("--trials", type=int, default=0, help="of each row")
    parser.add_argument("--keep", help="folder to work in, which stays")
    parser.add_argument(
        "--write", action="store_true", help=f"put the table into {_PAGE.name}"
    )
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as name:
        root = Path(options.keep or name)
        # Nothing of an attack reaches the caches of the person who runs it.
        os.environ["SWEET_JAX_CACHE"] = str(root / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        start = time.perf_counter()
        lines, is_good = [], True
        for line, holds in _ATTACKS[options.attack](root, options):
            print(line, flush=True)
            lines.append(line)
            is_good &= holds
        minutes = (time.perf_counter() - start) / 60
        print(f"{minutes:.0f} min", file=sys.stderr)
    if options.write:
        _write_table(options.attack, lines)
    return 0 if is_good else 1


def _fuzz(root: Path, options: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    from campaign.fuzz import run_trials
    from campaign.readers import READERS
    from campaign.seeds import make_seeds

    logging.disable(logging.WARNING)  # Of odd folders there are many.
    seeds = make_seeds(root / "seeds")
    yield "| reader | trials | read | refused | slowest | faults |", True
    yield "| :--- | ---: | ---: | ---: | ---: | ---: |", True
    for reader in READERS.values():
        if options.only not in reader.name:
            continue
        scratch = root / "scratch"
        scratch.mkdir(exist_ok=True)
        counts: Counter[str] = Counter()
        slowest = 0.0
        count = options.trials or 2000
        for trial in run_trials(reader, seeds, scratch, options.first, count):
            counts[trial.outcome if trial.is_good else "faults"] += 1
            slowest = max(slowest, trial.seconds)
            if not trial.is_good or count == 1:
                _complain(
                    f"{reader.name} {trial.number}: {trial.change}: {trial.outcome}:"
                    f" {trial.line[:300]}"
                )
        yield (
            f"| {reader.name} | {counts.total()} | {counts['read']} |"
            f" {counts['refused']} | {slowest:.1f} s | {counts['faults']} |",
            not counts["faults"],
        )


def _kill(root: Path, options: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    from campaign.kill import kill_again_and_again, list_commands
    from campaign.seeds import make_seeds

    seeds = make_seeds(root / "seeds")
    outcomes = ("killed", "stopped", "finished", "unborn")
    yield f"| command | starts | {' | '.join(outcomes)} | slowest | faults |", True
    yield f"| :--- | {' | '.join(['---:'] * 7)} |", True
    for command in list_commands(seeds):
        if options.only not in command.name:
            continue
        counts: Counter[str] = Counter()
        slowest = 0.0
        scratch = root / command.name.replace(", ", "_")
        for kill in kill_again_and_again(
            command, scratch, options.trials or 20, str(options.first)
        ):
            counts[kill.outcome if kill.is_good else "faults"] += 1
            if kill.outcome == "stopped":
                slowest = max(slowest, kill.seconds)
            if not kill.is_good:
                _complain(f"{command.name}: {kill}")
        yield (
            f"| {command.name} | {counts.total()} |"
            f" {' | '.join(str(counts[name]) for name in outcomes)} |"
            f" {slowest:.1f} s | {counts['faults']} |",
            not counts["faults"],
        )


def _damage(root: Path, options: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    from main_command import MainCommand

    from campaign.damage import damage_all, list_targets
    from campaign.seeds import make_seeds

    seeds = make_seeds(root / "seeds")
    other = make_seeds(root / "other", seed=1)
    command = MainCommand(root, root / "cache")
    outcomes = ("refused", "rebuilt", "as before")
    yield f"| folder, command | damages | {' | '.join(outcomes)} | faults |", True
    yield f"| :--- | {' | '.join(['---:'] * 5)} |", True
    for target in list_targets(seeds, other, root / "targets"):
        if options.only not in target.name:
            continue
        counts: Counter[str] = Counter()
        scratch = root / target.name.replace(", ", "_").replace(" ", "_")
        for damage in damage_all(target, command, scratch):
            counts[damage.outcome if damage.is_good else "faults"] += 1
            if not damage.is_good or options.only:
                _complain(f"{target.name}: {damage}")
        yield (
            f"| {target.name} | {counts.total()} |"
            f" {' | '.join(str(counts[name]) for name in outcomes)} |"
            f" {counts['faults']} |",
            not counts["faults"],
        )
    command.close()


_ATTACKS: dict[
    str, Callable[[Path, argparse.Namespace], Iterator[tuple[str, bool]]]
] = {"fuzz": _fuzz, "kill": _kill, "damage": _damage}


def _complain(line: str) -> None:
    print(line.encode("unicode_escape").decode(), file=sys.stderr, flush=True)


def _write_table(attack: str, lines: list[str]) -> None:
    """Replaces the table between the two remarks of its name."""
    begin, end = f"<!-- {attack} -->\n", f"<!-- end of {attack} -->"
    head, _, rest = _PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, tail = rest.partition(end)
    table = "\n".join(lines)
    _PAGE.write_text(f"{head}{begin}{table}\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
