"""Measure a finished run on other data, with its own calibration and thresholds.

    python -m sweet_jax evaluate --run=runs/x --data=reviews.jsonl
    python -m sweet_jax evaluate --run=runs/x --data=imdb --text_columns=text

Writes results.json, curves.npz, the logit bank and a report to
RUN/evaluations/NAME. Nothing is fitted on the new rows.
"""

from pathlib import Path

from absl import flags

from sweet_jax.commands.flags import run_command
from sweet_jax.settings.fields import SettingsError
from sweet_jax.system import process, stopping

_RUN = flags.DEFINE_string("run", "", "Work directory of a finished run.")
_DATA = flags.DEFINE_string(
    "data", "", "A labelled file, a folder of them, or the name of a task."
)
_OUTPUT = flags.DEFINE_string("output", "", "Where to write; empty: in the run.")
_TEXT_COLUMNS = flags.DEFINE_list("text_columns", [], "One or two; empty: as the run.")
_LABEL_COLUMN = flags.DEFINE_string("label_column", "", "Empty: as the run.")


def main() -> int:
    """Runs the command; returns the exit status."""
    for name, value in (("run", _RUN.value), ("data", _DATA.value)):
        if not value:
            raise SettingsError(f"--{name} is missing: see --help")

    from sweet_jax.report import format_summary
    from sweet_jax.runs.evaluate import evaluate_on

    results, path = evaluate_on(
        Path(_RUN.value),
        _DATA.value,
        tuple(_TEXT_COLUMNS.value),
        _LABEL_COLUMN.value,
        Path(_OUTPUT.value) if _OUTPUT.value else None,
    )
    stopping.finish(0)  # The same command would refuse to write again.
    process.say(format_summary(results))
    process.say(f"\nreport: {path / 'report.html'}")
    return 0


if __name__ == "__main__":
    run_command(main)
