"""Methods: how the exits of one run are trained, each with its source.

A method is a function of the settings and the number of exits. It returns the models
that are trained on their own (its members) and, for each of their phases, three static
things: how much gradient crosses each seam, how much each exit's loss counts, and which
parameters learn (`objectives`). The first three are the paper's. The others come from
other early-exit work, for comparison with SWEET: all share an optimiser, learning rates
and exits, so what is kept of a source is which parameters learn from which loss, and
when. Each docstring says where else its source's released code differs. j counts exits
from 0.

`register_method` adds one from outside (docs/extending.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

from sweet_jax.settings.fields import Settings, SettingsError
from sweet_jax.settings.registries import METHODS
from sweet_jax.settings.seams import check_seam_scales
from sweet_jax.training.objectives import Member, Objective, Phase, find_problem

Method = Callable[[Settings, int], tuple[Member, ...]]


def make_sweet(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """SWEET (paper section 4): sum of CE_i, gradients stopped or scaled at each seam.

    With a > 0 CE_j reaches segment i scaled by a^(j-i); with a number per seam, by the
    product of those between; with a schedule a is another one in each part of the
    training, which stays one: its optimiser and learning rates go on. All three are
    extensions of the paper.

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


def make_two_stage(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Two stages (DeeBERT, Xin et al. 2020).

    First the encoder and the last exit learn from CE_last, as in ordinary fine-tuning;
    then both are frozen, and the other exits learn from the sum of their CE_j.

    Departures from the released code: it limits the gradient norm over all parameters
    of the model, so in the second stage the gradients that reach the encoder, which
    does not learn, shrink the exits' steps; here the norm is over what learns. Its
    exits start from the checkpoint's pooler, as with exits.pooler_init=checkpoint; the
    default here is a fresh one.
    """
    return _make_stages(num_exits, teacher=None)


def make_self_distill(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Self-distillation in two stages (FastBERT, Liu et al. 2020, sections 3.2.2-3).

    The first stage is that of two_stage. In the second the other exits never see the
    labels: each minimises KL(student || teacher), the paper's equation 5, to the soft
    answer of the last exit; their sum is equation 6. (The released code computes the
    other direction, KL(teacher || student); RomeBERT and BERxiT distil while all is
    trained jointly: other methods.)

    Departures: exits of one shape, pooler and classifier, where FastBERT's have
    self-attention; all rows are labelled, where FastBERT may distil on others. Its
    second stage starts from the first one's best epoch on the development rows and has
    ten times the learning rate; here it starts from the last step, at the same
    learning rates.
    Its optimiser has no bias correction and an epsilon of 1e-6. Its temperature of
    distillation is 1, as here.
    """
    return _make_stages(num_exits, teacher=num_exits - 1)


def make_alternating(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Alternating (BERxiT, Xin et al. 2021): CE_last, then the sum of all CE_j.

    Steps are counted from 0, as in the released code: the even ones minimise CE_last
    alone, the odd ones the sum over all exits, the last included. One optimiser takes
    all steps, so in even ones the other exits still move by its momentum and decay.

    Departures: steps are counted over the whole training, there from each epoch's start
    on; the two differ where an epoch has an odd number of steps. With
    exits.learn_to_exit, here each exit has its own head, which learns in the steps in
    which its exit does: the last one in all, the others in the odd ones. The released
    code then has one head for all layers, trains it in every step, and leaves CE_last
    out of the odd steps.
    """
    seams = (1.0,) * (num_exits - 1)
    return _make_single(
        num_exits,
        Objective(seams, _weigh_last(num_exits)),
        Objective(seams, (1.0,) * num_exits),
    )


def make_weighted(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Losses weighted by depth (PABEE, Zhou et al. 2020, after Kaya et al. 2019).

    PABEE minimises sum_j j L_j / sum_j j with an exit after each layer: j, from 1, is
    both the exit's number and the layers it needs. Here exits lie apart, and j is the
    layers, e_j + 1, since the paper reads the weights as the exits' relative costs.
    Its exit criterion is `patience`, whose threshold is PABEE's patience plus 1.
    """
    layers = settings.exits.layers
    assert len(layers) == num_exits, "the exits are known before the members"
    depths = [layer + 1 for layer in layers]
    weights = tuple(depth / sum(depths) for depth in depths)
    return _make_single(num_exits, Objective((1.0,) * (num_exits - 1), weights))


def make_gradient_equilibrium(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Gradient equilibrium (Li et al. 2019; ElasticBERT, Liu et al. 2022).

    The sum of all CE_j, whose gradient is rescaled where exit i (of E) leaves: of what
    the exit sends down 1 / (E - i) goes on, of what comes from above
    (E - i - 1) / (E - i). So segment i learns from the mean, not the sum, of the
    E - i losses above it: early segments are not pulled harder than late ones. Each
    exit's own parameters get their whole gradient.

    Departures: ElasticBERT pretrains and fine-tunes so with an exit after each layer;
    here it is fine-tuning, with the run's exits. The seams hold gradients back, so a
    table that layers share is each segment's own (BERT has none).
    """
    above = [num_exits - i for i in range(num_exits)]
    objective = Objective(
        seam_scale=tuple((n - 1) / n for n in above[:-1]),
        exit_scale=(1.0,) * num_exits,
        state_scale=tuple(1 / n for n in above),
    )
    return _make_single(num_exits, objective)


for _name, _method in {
    "sweet": make_sweet,
    "early_exit": make_early_exit,
    "multi_model": make_multi_model,
    "two_stage": make_two_stage,
    "alternating": make_alternating,
    "weighted": make_weighted,
    "self_distill": make_self_distill,
    "gradient_equilibrium": make_gradient_equilibrium,
}.items():
    METHODS.register(_name, _method)


def register_method(name: str, method: Any = None, *, replace: bool = False) -> Any:
    """Adds a method, so that `method=NAME` trains with it.

    Args:
        name: as settings, results and tables show it.
        method: function of the settings and the number of exits that returns the
            members; None: returns a decorator that adds the function below it.
        replace: take the name over from an earlier registration, as when a cell of a
            notebook runs again.

    Returns:
        The function, unchanged.

    Raises:
        ValueError: the name is taken or malformed, or the method is no function.
    """
    return METHODS.register(name, method, replace=replace)


def make_members(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Returns the members of the run's method.

    Raises:
        SettingsError: the method is not registered, its settings do not fit the number
            of exits, or what it returns cannot be trained.
    """
    try:
        method: Method = METHODS.lookup(settings.method)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    members = method(settings, num_exits)
    if problem := find_problem(members, num_exits):
        raise SettingsError(
            f"method={settings.method} with {num_exits} exits: {problem}; repair the"
            " function that is registered under this name"
        )
    return tuple(members)


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


def _make_stages(num_exits: int, teacher: int | None) -> tuple[Member, ...]:
    """Returns a member that fine-tunes its encoder, then trains exits on it, frozen.

    Each stage takes train.num_epochs and an optimiser of its own, as in the released
    codes, so the encoder learns for as many steps as under the other methods. In the
    second no gradient enters the encoder: a step costs little more than a forward pass.

    The frozen encoder, and the teacher, keep their dropout, as in the released codes:
    states that differ from epoch to epoch are harder to learn by heart from few rows.
    """
    seams, last = (1.0,) * (num_exits - 1), num_exits - 1
    fine_tuning = Phase(
        (Objective(seams, _weigh_last(num_exits)),),
        trainable=("encoder/.*", f"exits/exit_{last}/.*"),
    )
    on_frozen = Phase(
        (
            Objective(
                seams,
                exit_scale=(1.0,) * last + (0.0,),
                state_scale=(0.0,) * num_exits,
                teacher=teacher,
            ),
        ),
        trainable=tuple(f"exits/exit_{i}/.*" for i in range(last)),
    )
    # A single exit is the last one: nothing is left for a second stage.
    phases = (fine_tuning, on_frozen) if last else (fine_tuning,)
    return (Member("", tuple(range(num_exits)), phases),)


def _make_single(num_exits: int, *objectives: Objective) -> tuple[Member, ...]:
    """Returns a member of one phase whose objectives take turns."""
    phase = Phase(objectives, takes_turns=True)
    return (Member("", tuple(range(num_exits)), (phase,)),)


def _weigh_last(num_exits: int) -> tuple[float, ...]:
    """Returns exit weights of 0, but 1 for the last exit."""
    return (0.0,) * (num_exits - 1) + (1.0,)
