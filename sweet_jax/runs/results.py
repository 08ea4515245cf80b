"""Makes results.json (schema 1) and the description of the model."""

from typing import Any

import numpy as np
from jaxtyping import Int

from sweet_jax.data.batches import compute_padding_ratio, plan_epoch
from sweet_jax.engine.costs import SegmentCosts
from sweet_jax.evaluation.banks import Evaluation
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.calibration import Calibration
from sweet_jax.models.init import compute_shapes
from sweet_jax.runs.inputs import Prepared
from sweet_jax.runs.workdir import SCHEMA, Workdir, collect_versions
from sweet_jax.serving.description import ModelDescription
from sweet_jax.training.metrics_log import read_cost
from sweet_jax.trees import count_parameters


def make_results(
    prepared: Prepared,
    work: Workdir,
    evaluations: dict[str, Evaluation],
    collector: Collector,
    load_seconds: float,
    evaluate_seconds: float,
    costs: SegmentCosts | None,
    baselines: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns the content of results.json.

    Args:
        prepared: the run's inputs.
        work: its work directory, for digests and the cost of training.
        evaluations: evaluations of `test` and further test sets.
        collector: gives the programs that evaluation compiled.
        load_seconds: time of reading inputs, in this process.
        evaluate_seconds: time of banks, calibration and cascades, without compilation.
        costs: costs of the segments; None: not measured.
        baselines: from `measure_run_baselines`; None: not measured.
    """
    settings = prepared.settings
    cost = read_cost(work.path / "metrics.jsonl")
    others = {
        name: {"exits": e.exits, "at_speedup": e.at_speedup, "area": e.area}
        for name, e in evaluations.items()
        if name != "test"
    }
    return {
        "schema": SCHEMA,
        "digest": work.evaluation_digest,
        "method": settings.method,
        "method_label": settings.method_label,
        "boundary_gradient_scale": settings.boundary_gradient_scale,
        "boundary_gradient_scales": list(settings.boundary_gradient_scales),
        "boundary_gradient_phases": list(settings.boundary_gradient_phases),
        "task": settings.data.task,
        "metric": prepared.raw.task.metric,
        "encoder": settings.encoder.name,
        "seed": settings.seed,
        "exit_layers": list(settings.exits.layers),
        "num_layers": settings.exits.layers[-1] + 1,
        "label_names": list(prepared.raw.label_names),
        "splits": {
            name: prepared.rows[name].num_rows
            for name in ("train", "calibration", "test")
        },
        "reads_calibration_labels": prepared.splits.reads_calibration_labels,
        "train_label_counts": np.bincount(
            prepared.splits.train.labels, minlength=prepared.num_classes
        ).tolist(),
        "columns": {
            "text": list(prepared.raw.columns.texts),
            "label": prepared.raw.columns.label,
        },
        "origin": prepared.splits.origin,
        "notes": list(prepared.notes),
        **evaluations["test"].to_results(),
        "extra_tests": others,
        "costs": None
        if costs is None
        else costs.to_json([member.exits for member in prepared.members]),
        "baselines": baselines,
        "faithful_release": settings.faithful_release,
        "truncated_rows": {
            name: rows.truncated_rows for name, rows in prepared.rows.items()
        },
        "padded_over_real": compute_train_padding(prepared),
        "parameters": count_all_parameters(prepared),
        "training_flops": cost.flops,
        "training_temporary_bytes": cost.temporary_bytes,
        "programs": {
            "train": cost.num_programs,
            "evaluate": len(collector.programs.by_shape),
        },
        "seconds": {
            "load": round(load_seconds, 2),
            "compile": round(cost.compile_seconds + collector.programs.seconds, 2),
            "probe": round(cost.start_seconds, 2),
            "train": round(cost.seconds, 2),
            "evaluate": round(evaluate_seconds, 2),
        },
        "versions": collect_versions(),
    }


def compute_train_padding(prepared: Prepared) -> float:
    """Returns padded / real tokens of the first epoch, padding rows included."""
    settings, lengths = prepared.settings, prepared.rows["train"].lengths
    batch_size = settings.train.batch_size
    plans = plan_epoch(lengths, batch_size, prepared.buckets, settings.seed, epoch=0)
    return round(compute_padding_ratio(plans, lengths, batch_size), 4)


def count_all_parameters(prepared: Prepared) -> int:
    """Returns the number of parameters of all models that are served together."""
    return sum(count_parameters(compute_shapes(model)) for model in prepared.models)


def describe_model(
    prepared: Prepared,
    digest: str,
    evaluation: Evaluation,
    calibration: Calibration,
) -> ModelDescription:
    """Returns the model description for the model folder of a run.

    Args:
        prepared: the run's inputs.
        digest: digest of the training.
        evaluation: evaluation of the test split, for its thresholds.
        calibration: calibration of the model.
    """
    settings = prepared.settings
    lengths_N = prepared.rows["calibration"].lengths
    return ModelDescription(
        method=settings.method_label,
        task=settings.data.task,
        label_names=prepared.raw.label_names,
        has_pairs=prepared.splits.train.pairs is not None,
        text_columns=prepared.raw.columns.texts,
        label_column=prepared.raw.columns.label,
        exit_layers=settings.exits.layers,
        member_exits=tuple(member.exits for member in prepared.members),
        separate_tables=prepared.separate_tables,
        shared_pooler=prepared.models[0].shared_pooler,
        pooling=settings.exits.pooling,
        dtype=settings.encoder.dtype,
        matmul_precision=settings.encoder.matmul_precision,
        ignore_attributes=settings.encoder.ignore_attributes,
        max_length=prepared.buckets[-1],
        buckets=prepared.buckets,
        thresholds=evaluation.at_speedup,
        digest=digest,
        bucket_rows=count_buckets(lengths_N, prepared.buckets),
        **calibration.describe(),
    )


def count_buckets(
    lengths_N: Int[np.ndarray, " N"], buckets: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the number of rows per bucket; each row is in the first that holds it."""
    places_N = np.searchsorted(buckets, lengths_N)
    return tuple(np.bincount(places_N, minlength=len(buckets)).tolist())
