"""Stopping between two training steps, on one host or on all of them together."""

from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from sweet_jax.system.stopping import Stopped


class Interrupted(Stopped):
    """Training stopped after a step because it was asked to; the state is saved."""

    def __init__(self, step: int) -> None:
        """Keeps the number of steps done."""
        super().__init__(
            f"stopped after step {step}; the same command goes on from there"
        )
        self.step = step


def should_stop(is_asked: Callable[[], bool], step: int) -> bool:
    """Whether to stop after `step`; all hosts get the same answer.

    Args:
        is_asked: whether this host was asked to, from `stopping.hold`.
        step: steps done.
    """
    if jax.process_count() > 1:
        # One host is preempted first: jax agrees on a step that all can reach.
        return multihost_utils.reached_preemption_sync_point(step)
    return is_asked()
