"""Stops training between two steps, on one host or on all hosts at the same step."""

from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from sweet_jax.system.stopping import Stopped


class Interrupted(Stopped):
    """Training stopped after a step on request; the state is saved."""

    def __init__(self, step: int) -> None:
        """Stores the number of steps done."""
        super().__init__(
            f"stopped after step {step}; the same command goes on from there"
        )
        self.step = step


def should_stop(is_asked: Callable[[], bool], step: int) -> bool:
    """Whether to stop after `step`; all hosts get the same result.

    Args:
        is_asked: whether this process was asked to stop, from `stopping.hold`.
        step: steps done.
    """
    if jax.process_count() > 1:
        # Hosts are preempted at different times: jax picks a step that all can reach.
        return multihost_utils.reached_preemption_sync_point(step)
    return is_asked()
