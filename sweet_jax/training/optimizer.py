"""AdamW with separate learning rates for encoder and exits, and clip scopes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from sweet_jax.arrays import Array, Params
from sweet_jax.settings.fields import OptimSettings
from sweet_jax.trees import make_mask, map_paths


class Schedule(NamedTuple):
    """A learning-rate schedule: linear warm-up from 0 to a peak, then linear to an end.

    Its numbers are arrays in the optimiser's state, not constants of the compiled step:
    runs with other learning rates or numbers of steps reuse the same program from the
    persistent cache.

    Attributes:
        peak: the highest learning rate.
        end: the learning rate after the last step.
        warmup_steps: number of warm-up steps.
        num_steps: number of steps in total.
    """

    peak: Float[Array, ""]
    end: Float[Array, ""]
    warmup_steps: Float[Array, ""]
    num_steps: Float[Array, ""]

    def compute_learning_rate(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Returns the learning rate of a step, counted from 0."""
        done = step - self.warmup_steps
        left = jnp.maximum(self.num_steps - self.warmup_steps, 1)
        after = self.peak + (self.end - self.peak) * jnp.clip(done / left, 0, 1)
        rising = self.peak * step / jnp.maximum(self.warmup_steps, 1)
        return jnp.where(done < 0, rising, after)


def make_schedule(settings: OptimSettings, peak: float, num_steps: int) -> Schedule:
    """Returns the learning-rate schedule of a phase.

    It rises from 0 over `warmup_percent` of the steps, then falls to 0 (`linear`) or
    stays at the peak (`constant`).
    """
    return Schedule(
        peak=jnp.float32(peak),
        end=jnp.float32(0 if settings.schedule == "linear" else peak),
        warmup_steps=jnp.float32(round(num_steps * settings.warmup_percent / 100)),
        num_steps=jnp.float32(num_steps),
    )


def scale_by_schedule(schedule: Schedule) -> optax.GradientTransformation:
    """Returns the last transformation of an optimiser: -learning rate * update."""

    def init(params: Params) -> tuple[Array, Schedule]:
        return jnp.zeros((), jnp.int32), schedule

    def update(
        updates: Params, state: tuple[Array, Schedule], params: Params | None = None
    ) -> tuple[Params, tuple[Array, Schedule]]:
        step, kept = state
        learning_rate = kept.compute_learning_rate(step)
        updates = jax.tree.map(lambda u: -learning_rate.astype(u.dtype) * u, updates)
        return updates, (step + 1, kept)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def scale_by_released_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """Returns Adam as in transformers' own AdamW, the Trainer's default up to 4.2x.

    It adds epsilon to the root of the second moment before bias correction:
    sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps). Compared with torch and optax,
    epsilon becomes eps / sqrt(1 - b2^t): 32 times as large at step 1, twice at step
    288. Parameters with gradients of about that size move less at first.

    Departure: that class decays the parameters after the step; here decay uses their
    values before the step. Relative to the step, the difference is learning rate *
    decay.
    """
    adam = optax.scale_by_adam(b1, b2, eps)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        _, state = adam.update(updates, state, params)
        scale = jnp.sqrt(1 - b2**state.count) / (1 - b1**state.count)
        moves = jax.tree.map(
            lambda m, v: scale * m / (jnp.sqrt(v) + eps), state.mu, state.nu
        )
        return moves, state

    return optax.GradientTransformation(adam.init, update)


def make_optimizer(
    settings: OptimSettings,
    params: Params,
    trainable: tuple[str, ...],
    find_segment: Callable[[str], int],
    num_steps: int,
) -> optax.GradientTransformation:
    """Returns the optimiser of one phase.

    Args:
        settings: learning rates, schedule, decay and clipping.
        params: the parameters, for their paths.
        trainable: regexes of the trainable paths; the other parameters do not change
            and have no optimiser state.
        find_segment: path -> segment, for clip_scope=segment.
        num_steps: number of steps of the phase.
    """
    assert settings.epsilon_mode != "auto", "settings are resolved before training"
    learns = make_mask(params, trainable)
    labels = jax.tree.map(lambda on: "learns" if on else "frozen", learns)
    before = settings.epsilon_mode == "before_correction"
    scale_by_moments = scale_by_released_adam if before else optax.scale_by_adam
    adam = optax.chain(
        make_clipping(settings, params, find_segment),
        scale_by_moments(b1=0.9, b2=0.999, eps=1e-8),
        # Before the learning rate, otherwise decay would ignore the schedule.
        optax.add_decayed_weights(settings.weight_decay, mask=make_decay_mask),
        optax.partition(
            {
                name: scale_by_schedule(make_schedule(settings, peak, num_steps))
                for name, peak in (
                    ("encoder", settings.encoder_learning_rate),
                    ("exits", settings.exit_learning_rate),
                )
            },
            lambda tree: map_paths(lambda path: path.split("/")[0], tree),
        ),
    )
    return optax.partition({"learns": adam, "frozen": optax.set_to_zero()}, labels)


def make_clipping(
    settings: OptimSettings, params: Params, find_segment: Callable[[str], int]
) -> optax.GradientTransformation:
    """Returns gradient clipping per segment with its exit, or over all parameters.

    One norm over all parameters would couple SWEET's segments again: a large gradient
    of one exit would reduce the steps of the others.
    """
    if not settings.clip_norm:
        return optax.identity()
    clip = optax.clip_by_global_norm(settings.clip_norm)
    if settings.clip_scope != "segment":
        return clip
    segments = {find_segment(path) for path in _paths(params)}
    return optax.partition(
        {str(segment): clip for segment in segments},
        lambda tree: map_paths(lambda path: str(find_segment(path)), tree),
    )


def make_decay_mask(params: Params) -> Params:
    """Returns True for kernels and embeddings; biases and norms do not decay."""
    return map_paths(
        lambda path: path.rsplit("/", 1)[1] in ("kernel", "embedding"), params
    )


def _paths(params: Params) -> list[str]:
    return list(jax.tree.leaves(map_paths(lambda path: path, params)))
