"""Baselines beside a run's exits, and a warning where an exit is below them."""

from typing import Any

from sweet_jax.report.tables import (
    METRIC_NAMES,
    Table,
    format_number,
    metric_name,
    start_with_metric,
)

# Smaller differences between an exit and a baseline are not worth a warning.
_MARGIN = 0.01
_PROBE_ADVICE = "start exits as such models (exits.init=probe), "
_ADVICE = (
    "add labelled rows, train longer (train.num_epochs) if the training loss is still"
    " high, or use the linear model, which is fitted in seconds (docs/baselines.md)"
)


def make_baseline_table(results: dict[str, Any]) -> Table:
    """Returns a row per exit: its score and those of the baselines; or no rows.

    Results lack baselines if they were turned off, and in kept studies.
    """
    header = ("exit", "layer", "this run", "frozen states", "tf-idf", "majority")
    baselines = results.get("baselines")
    if baselines is None:
        return Table("", header, ())
    has_accuracy = results["metric"] != "accuracy"

    def show(row: dict[str, Any]) -> str:
        score = format_number(row["score"])
        return f"{score} ({format_number(row['accuracy'])})" if has_accuracy else score

    rows = tuple(
        (
            str(exit_row["exit"]),
            str(exit_row["layer"]),
            *map(show, (exit_row, frozen, baselines["tfidf"], baselines["majority"])),
        )
        for exit_row, frozen in zip(results["exits"], baselines["frozen"], strict=True)
    )
    score = start_with_metric(results) + (" (accuracy)" if has_accuracy else "")
    return Table(
        f"{score} of every exit and of baselines with the same training rows, on all"
        f" test examples: {baselines['frozen'][0]['model']} on the states that the exit"
        f" reads in the encoder before training, {baselines['tfidf']['model']} on"
        f" tf-idf, and the majority class ({baselines['seconds']:.0f} seconds for all)",
        header,
        rows,
        num_text_columns=0,
    )


def describe_low_exits(results: dict[str, Any]) -> str:
    """Returns a warning about exits that score clearly below a baseline, or "".

    Every exit is compared with the frozen states of its own layer, tf-idf and the
    majority class. The scale of a registered metric is unknown; there the accuracies
    are compared.
    """
    baselines = results.get("baselines")
    if baselines is None:
        return ""
    by = "score" if results["metric"] in METRIC_NAMES else "accuracy"
    what = metric_name(results) if by == "score" else "accuracy"
    low = []
    for row, frozen in zip(results["exits"], baselines["frozen"], strict=True):
        named = {
            f"{frozen['model']} on the frozen states of its layer": frozen[by],
            f"{baselines['tfidf']['model']} on tf-idf": baselines["tfidf"][by],
            "the majority class": baselines["majority"][by],
        }
        name = max(named, key=lambda name: named[name])
        gap = named[name] - row[by]
        if gap > _MARGIN + 1e-9:
            low.append(
                f"exit {row['exit']} ({row[by]:.3f}) is {100 * gap:.1f} points below"
                f" {name} ({named[name]:.3f})"
            )
    if not low:
        return ""
    is_probed = results["seconds"].get("probe", 0) > 0
    advice = _ADVICE if is_probed else _PROBE_ADVICE + _ADVICE
    return f"trained exits lose to a simple model in {what}: {'; '.join(low)}: {advice}"
