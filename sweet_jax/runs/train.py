"""Trains the members of a run, or restores them from their checkpoints."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax

from sweet_jax.analysis.registry import Analyses
from sweet_jax.arrays import Params
from sweet_jax.evaluation.collect import Collector
from sweet_jax.evaluation.metrics import score_exits_alone
from sweet_jax.models.init import init_params
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.runs.inputs import Prepared
from sweet_jax.runs.probe_exits import probe_exits
from sweet_jax.runs.workdir import METRICS, Workdir
from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.training.loop import Progress, train_member
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.training.selection import BestEpoch

# Folded into the seed's key, so that fresh weights and dropout use different keys.
_WEIGHTS_STREAM = 0


def train_members(
    prepared: Prepared, work: Workdir, analyses: Analyses, quiet: bool
) -> Params:
    """Trains all members of a run, one after the other; finished ones are restored.

    Args:
        prepared: the inputs of the run.
        work: its work directory, for checkpoints and metrics.jsonl.
        analyses: the analyses of the run, which measure during training.
        quiet: whether to hide the progress.

    Returns:
        The serving parameters, on the host.

    Raises:
        NonFiniteError: the training diverged.
        Interrupted: a stop was requested; the same call resumes.
    """
    trained = [
        _train_one(prepared, training, work, analyses, quiet)
        for training in prepared.trainings
    ]
    analyses.finish()
    return join_params(trained)


def join_params(members: list[Params]) -> Params:
    """Joins the parameters of trained members for serving (`join_models`)."""
    if len(members) == 1:
        return members[0]
    return {f"member_{i}": params for i, params in enumerate(members)}


def split_params(params: Params, names: list[str]) -> dict[str, Params]:
    """Splits serving parameters by the names of the members."""
    return {name: params[name] if name else params for name in names}


def keep_layers(encoder: Params, num_layers: int) -> Params:
    """Returns the encoder's parameters without the layers from `num_layers` on."""
    dropped = {f"layer_{i}" for i in range(num_layers, len(encoder))}
    return {name: part for name, part in encoder.items() if name not in dropped}


def _train_one(
    prepared: Prepared,
    training: MemberTraining,
    work: Workdir,
    analyses: Analyses,
    quiet: bool,
) -> Params:
    """Trains one member; returns its parameters, on the host."""
    settings, name = prepared.settings, training.member.name
    initial = make_initial_params(prepared, training.model)
    metrics = work.path / METRICS
    folder: Path = work.path / "checkpoints" / (name or "model") / "steps"
    store = Checkpoints(folder, work.training_digest, metrics)
    best = None
    if settings.train.select == "best":
        score_fn = _make_selection_score(prepared, training.model)
        best = BestEpoch(store, score_fn, initial)
    params = train_member(
        training,
        initial,
        best or store,
        Progress(
            metrics,
            quiet,
            on_epoch_end=None if best is None else best.offer,
            at_steps=analyses.find_calls(name),
        ),
        functools.partial(
            probe_exits,
            training,
            prepared.frozen_states,
            lambda: prepared.frozen_probes,
        )
        if settings.exits.init == "probe"
        else None,
    )
    store.keep_newest(1)
    return jax.device_get(params) if best is None else best.take()


def make_initial_params(prepared: Prepared, model: MultiExitClassifier) -> Params:
    """Returns a member's parameters before training, pretrained and fresh ones."""
    settings, loaded = prepared.settings, prepared.loaded
    return init_params(
        model,
        jax.random.fold_in(jax.random.key(settings.seed), _WEIGHTS_STREAM),
        keep_layers(loaded.encoder, model.exit_layers[-1] + 1),
        loaded.pooler if settings.exits.pooler_init == "checkpoint" else None,
        loaded.final_norm,
    )


def _make_selection_score(
    prepared: Prepared, model: MultiExitClassifier
) -> Callable[[Params], float]:
    """Returns a function: parameters -> mean exit score on calibration part 0."""
    collector = Collector(
        model,
        prepared.settings.evaluate.batch_size,
        prepared.buckets,
        prepared.pad_id,
    )
    metric, part = prepared.raw.task.metric, prepared.splits.part

    def compute_selection_score(params: Params) -> float:
        bank = collector.collect(params, prepared.rows["calibration"], part)
        return score_exits_alone(metric, bank.select_part(0))

    return compute_selection_score
