"""Methods: how the exits of one run are trained.

A method says which models are trained on their own (its members) and, for each of
their phases, three static things: how much gradient crosses each seam, how much each
exit's loss counts, and which parameters learn. The training loop knows nothing else.
"""

import dataclasses
from collections.abc import Callable, Sequence

from sweet_jax.settings import METHODS as METHOD_NAMES
from sweet_jax.settings import Settings, SettingsError


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one compiled step.

    Attributes:
        seam_scale: share of the gradient that crosses seam i; E-1 numbers.
        exit_scale: weight of CE_i in the sum; an exit with 0 has no backward pass.
        trainable: regexes of the parameter paths that learn.
        steps_percent: share of the member's steps.
    """

    seam_scale: tuple[float, ...]
    exit_scale: tuple[float, ...]
    trainable: tuple[str, ...] = (".*",)
    steps_percent: float = 100.0


@dataclasses.dataclass(frozen=True)
class Member:
    """A model that is trained on its own.

    Attributes:
        name: `member_0`, ... or "" where the method has a single model.
        exits: numbers of the run's exits it owns.
        phases: in order; their shares of the steps add up to 100.
    """

    name: str
    exits: tuple[int, ...]
    phases: tuple[Phase, ...]


Method = Callable[[Settings, int], tuple[Member, ...]]


def make_sweet(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """SWEET (paper section 4): sum of CE_i, gradients stopped or scaled at each seam.

    With a > 0 CE_j reaches segment i scaled by a^(j-i): our extension.
    """
    phase = Phase(
        seam_scale=(settings.boundary_gradient_scale,) * (num_exits - 1),
        exit_scale=(1.0,) * num_exits,
    )
    return (Member("", tuple(range(num_exits)), (phase,)),)


def make_early_exit(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Early exit (paper section 2): sum of CE_i, all gradients through all segments."""
    phase = Phase((1.0,) * (num_exits - 1), (1.0,) * num_exits)
    return (Member("", tuple(range(num_exits)), (phase,)),)


def make_multi_model(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Multi model (paper section 2): a truncated encoder per exit, trained alone."""
    return tuple(
        Member(f"member_{i}", (i,), (Phase((), (1.0,)),)) for i in range(num_exits)
    )


METHODS: dict[str, Method] = {
    "sweet": make_sweet,
    "early_exit": make_early_exit,
    "multi_model": make_multi_model,
}
assert tuple(METHODS) == METHOD_NAMES, "settings.METHODS names the registry's methods"


def separates_segments(members: Sequence[Member]) -> bool:
    """Whether some seam holds gradients back.

    A table that layers on both sides of it read would carry them across: then every
    segment has its own copy.
    """
    return any(
        scale != 1
        for member in members
        for phase in member.phases
        for scale in phase.seam_scale
    )


def make_members(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Returns the members of the run's method.

    Raises:
        SettingsError: the method is not registered.
    """
    if settings.method not in METHODS:
        raise SettingsError(
            f"method={settings.method!r}: allowed are {', '.join(METHODS)}"
        )
    return METHODS[settings.method](settings, num_exits)
