"""Describes a run and its cost without running it (`--dry_run`)."""

from pathlib import Path

import jax
import numpy as np

from sweet_jax.devices import configure_jax
from sweet_jax.models.init import compute_shapes
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.runs.results import compute_train_padding, count_all_parameters
from sweet_jax.runs.workdir import default_workdir
from sweet_jax.settings.fields import Settings, flatten_settings
from sweet_jax.training.phase_run import measure_step
from sweet_jax.trees import count_parameters

_FLOAT_BYTES = 4
# Parameters, gradients, and the two moments of AdamW.
_COPIES_IN_TRAINING = 4


def describe_run(settings: Settings, workdir: Path | None) -> str:
    """Returns steps, parameters, splits, token statistics and the memory estimate.

    Raises:
        ValueError: an input is wrong; the run itself would raise the same.
    """
    configure_jax(settings.encoder.matmul_precision)
    prepared = prepare(settings)
    settings = prepared.settings
    training = prepared.trainings[-1]
    contrastive = settings.train.contrastive_epochs
    num_phases = len(training.member.phases) - (contrastive > 0)
    epochs = f"{settings.train.num_epochs} epochs of {training.steps_per_epoch}"
    epochs += f", in each of {num_phases} phases" if num_phases > 1 else ""
    epochs += f", after {contrastive} contrastive ones" if contrastive else ""
    lines = [
        f"work directory  {workdir or default_workdir(settings)}",
        f"method          {settings.method_label}, exits after layers"
        f" {_join(settings.exits.layers)} of {prepared.config.num_layers}",
        f"encoder         {settings.encoder.name}: width {prepared.config.hidden_size},"
        f" {settings.encoder.dtype}, on {len(jax.devices())} {jax.default_backend()}"
        " device(s)",
        f"parameters      {count_all_parameters(prepared):,}",
        f"steps           {training.num_steps} per model ({epochs}),"
        f" {len(prepared.members)} model(s) to train",
    ]
    for name, rows in prepared.rows.items():
        lengths = rows.lengths
        median, high = np.percentile(lengths, (50, 95))
        counts = np.bincount(rows.labels, minlength=prepared.num_classes)
        share = ", ".join(
            f"{label} {count}"
            for label, count in zip(prepared.raw.label_names, counts, strict=True)
        )
        lines.append(
            f"{name:<15} {rows.num_rows:,} rows ({share}); tokens: median {median:.0f},"
            f" 95 % within {high:.0f}, longest {lengths.max()}, cut"
            f" {rows.truncated_rows}"
        )
    lines.append(
        f"padding         {compute_train_padding(prepared):.3f} padded over real tokens"
        f" in training, lengths {_join(prepared.buckets)}"
    )
    lines.append(f"memory          {_estimate_memory(prepared)}")
    lines += [f"note            {note}" for note in prepared.notes]
    lines.append("settings")
    lines += [f"  {name} = {v!r}" for name, v in flatten_settings(settings).items()]
    return "\n".join(lines)


def _join(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _estimate_memory(prepared: Prepared) -> str:
    """Returns the memory estimate for the largest member and the longest batch."""
    model, member = prepared.models[-1], prepared.members[-1]
    size = count_parameters(compute_shapes(model)) * _FLOAT_BYTES
    longest = int(prepared.rows["train"].lengths.max())
    length = next(b for b in prepared.buckets if b >= longest)
    # A contrastive step needs about as much.
    phase = next(p for p in member.phases if not p.is_contrastive)
    temporaries = measure_step(model, phase, prepared.settings, length).temporary_bytes
    return (
        f"about {(size * _COPIES_IN_TRAINING + temporaries) / 2**20:,.0f} MiB in"
        f" training (parameters {size / 2**20:,.0f} MiB x {_COPIES_IN_TRAINING},"
        f" temporaries {temporaries / 2**20:,.0f} MiB at"
        f" {prepared.settings.train.batch_size} x {length})"
    )
