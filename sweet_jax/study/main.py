"""What `sweet_jax.main` does with the config of a study."""

from pathlib import Path
from typing import Any

from sweet_jax import process
from sweet_jax.report import format_study
from sweet_jax.resolve import study_from_config_dict
from sweet_jax.study.outputs import write_study
from sweet_jax.study.plan import default_study_folder, make_plan
from sweet_jax.study.run import describe_plan, run_study


def run(config: Any, workdir: Path | None, dry_run: bool) -> int:
    """Runs a study and reports on it; returns the exit status.

    Args:
        config: with a section `study`.
        workdir: the study's folder; None: `default_study_folder`.
        dry_run: only say what there is to do.

    Raises:
        ValueError: a field or an input is wrong.
    """
    plan = make_plan(*study_from_config_dict(config))
    folder = workdir or default_study_folder(plan)
    if dry_run:
        process.say(describe_plan(plan, folder))
        return 0
    failures = run_study(plan, folder)
    record, _ = write_study(folder)
    process.say(f"{format_study(record)}\n\nreport: {folder / 'study.html'}")
    for failure in failures:
        process.complain(f"failed: {failure}")
    return 1 if failures else 0
