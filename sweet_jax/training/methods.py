"""Methods: how the exits of one run are trained.

A method says which models are trained on their own (its members) and, for each of
their phases, three static things: how much gradient crosses each seam, how much each
exit's loss counts, and which parameters learn. The paper's three methods are here,
those of other work in strategies.py; the words they are said in, in phases.py.
"""

from collections.abc import Callable, Sequence

from sweet_jax.settings.fields import METHODS as METHOD_NAMES
from sweet_jax.settings.fields import Settings, SettingsError
from sweet_jax.settings.seams import check_seam_scales
from sweet_jax.training.objectives import Member, Objective, Phase
from sweet_jax.training.strategies import (
    make_alternating,
    make_gradient_equilibrium,
    make_self_distill,
    make_two_stage,
    make_weighted,
)

Method = Callable[[Settings, int], tuple[Member, ...]]


def make_sweet(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """SWEET (paper section 4): sum of CE_i, gradients stopped or scaled at each seam.

    With a > 0 CE_j reaches segment i scaled by a^(j-i); with a number per seam, by the
    product of those between; with a schedule a is another one in each part of the
    training, which stays one: its optimiser and rates go on. All three: our extension.

    Raises:
        SettingsError: boundary_gradient_scales has not one number per seam.
    """
    num_seams = num_exits - 1
    check_seam_scales(settings.boundary_gradient_scales, num_exits)
    if settings.boundary_gradient_scales:
        seams = [settings.boundary_gradient_scales]
    else:
        schedule = settings.boundary_gradient_phases
        parts = schedule or (settings.boundary_gradient_scale,)
        seams = [(scale,) * num_seams for scale in parts]
    weights = (1.0,) * num_exits
    phase = Phase(tuple(Objective(seam_scale, weights) for seam_scale in seams))
    return (Member("", tuple(range(num_exits)), (phase,)),)


def make_early_exit(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Early exit (paper section 2): sum of CE_i, all gradients through all segments."""
    joint = Objective((1.0,) * (num_exits - 1), (1.0,) * num_exits)
    return (Member("", tuple(range(num_exits)), (Phase((joint,)),)),)


def make_multi_model(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Multi model (paper section 2): a truncated encoder per exit, trained alone."""
    alone = Phase((Objective((), (1.0,)),))
    return tuple(Member(f"member_{i}", (i,), (alone,)) for i in range(num_exits))


METHODS: dict[str, Method] = {
    "sweet": make_sweet,
    "early_exit": make_early_exit,
    "multi_model": make_multi_model,
    "two_stage": make_two_stage,
    "alternating": make_alternating,
    "weighted": make_weighted,
    "self_distill": make_self_distill,
    "gradient_equilibrium": make_gradient_equilibrium,
}
assert tuple(METHODS) == METHOD_NAMES, "settings.METHODS names the registry's methods"


def separates_segments(members: Sequence[Member]) -> bool:
    """Whether some seam holds gradients back, if only for a part of the training.

    A table that layers on both sides of it read would carry them across: then every
    segment has its own copy.
    """
    return any(
        scale != 1
        for member in members
        for phase in member.phases
        for objective in phase.objectives
        for scale in objective.seam_scale
    )


def make_members(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Returns the members of the run's method.

    Raises:
        SettingsError: the method is not registered, or its settings do not fit the
            number of exits.
    """
    if settings.method not in METHODS:
        raise SettingsError(
            f"method={settings.method!r}: allowed are {', '.join(METHODS)}"
        )
    return METHODS[settings.method](settings, num_exits)
