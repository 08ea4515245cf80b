"""Training methods for the exits, each with its source.

A method is a function of the settings and the number of exits. It returns its members
(models that are trained separately) and, for each of their phases, three static values:
the share of the gradient that crosses each seam, the weight of each exit's loss, and
the trainable parameters (`objectives`). The first three methods are the paper's. The
others come from other early-exit work, for comparison with SWEET. All use the same
optimiser, learning rates and exits; from its source, a method takes only which
parameters learn from which loss, and when. Each docstring lists other differences from
the source's released code. j counts exits from 0.

`register_method` adds a method from another package (docs/extending.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

from sweet_jax.settings.fields import Settings
from sweet_jax.settings.registries import METHODS
from sweet_jax.settings.rules import SettingsError
from sweet_jax.settings.seams import check_seam_scales
from sweet_jax.training.objectives import Member, Objective, Phase, find_problem

Method = Callable[[Settings, int], tuple[Member, ...]]


def make_sweet(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """SWEET (paper section 4): sum of CE_i, gradients stopped or scaled at each seam.

    With a > 0, the gradient of CE_j reaches segment i scaled by a^(j-i); with one
    number per seam, scaled by the product of the seams between them; with a schedule, a
    changes from one part of training to the next, while optimiser and learning-rate
    schedule continue. All three are extensions of the paper.

    Raises:
        SettingsError: boundary_gradient_scales does not have one number per seam.
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
    """Multi-model (paper section 2): one truncated encoder per exit, trained apart."""
    alone = Phase((Objective((), (1.0,)),))
    return tuple(Member(f"member_{i}", (i,), (alone,)) for i in range(num_exits))


def make_two_stage(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Two stages (DeeBERT, Xin et al. 2020).

    First the encoder and the last exit learn from CE_last, as in ordinary fine-tuning;
    then both are frozen, and the other exits learn from the sum of their CE_j.

    Departures from the released code: it clips the gradient norm over all parameters of
    the model, so in the second stage the gradients of the frozen encoder reduce the
    exits' steps; here the norm is over the trainable parameters. Its exits start from
    the checkpoint's pooler, as with exits.pooler_init=checkpoint; the default here is a
    fresh pooler.
    """
    return _make_stages(num_exits, teacher=None)


def make_self_distill(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Self-distillation in two stages (FastBERT, Liu et al. 2020, sections 3.2.2-3).

    The first stage is the same as in two_stage. In the second, the other exits do not
    use the labels: each minimises KL(student || teacher), the paper's equation 5, with
    the soft predictions of the last exit as teacher; their sum is equation 6. (The
    released code computes the other direction, KL(teacher || student). RomeBERT and
    BERxiT distil during joint training, which is another method.)

    Departures: all exits are a pooler and a classifier, while FastBERT's have
    self-attention; all rows are labelled, while FastBERT may distil on unlabelled ones.
    Its second stage starts from the best epoch of the first on the development rows,
    with ten times the learning rate; here it starts from the last step, with the same
    learning rates. Its optimiser has no bias correction and an epsilon of 1e-6. Its
    distillation temperature is 1, as here.
    """
    return _make_stages(num_exits, teacher=num_exits - 1)


def make_alternating(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Alternating (BERxiT, Xin et al. 2021): CE_last, then the sum of all CE_j.

    Steps are counted from 0, as in the released code: even steps minimise CE_last
    alone, odd steps the sum over all exits, including the last. One optimiser makes all
    steps, so in even steps the other exits still move by momentum and weight decay.

    Departures: steps are counted over the whole training, in the released code from the
    start of each epoch; this differs if an epoch has an odd number of steps. With
    exits.learn_to_exit, each exit here has its own head, which learns in the same steps
    as its exit: the last one in all steps, the others in odd ones. The released code
    then has one head for all layers, trains it in every step, and omits CE_last from
    the odd steps.
    """
    seams = (1.0,) * (num_exits - 1)
    return _make_single(
        num_exits,
        Objective(seams, _weigh_last(num_exits)),
        Objective(seams, (1.0,) * num_exits),
    )


def make_weighted(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Losses weighted by depth (PABEE, Zhou et al. 2020, after Kaya et al. 2019).

    PABEE minimises sum_j j L_j / sum_j j with an exit after each layer, so j, from 1,
    is both the number of the exit and its number of layers. Here exits may be further
    apart, and the weight is the number of layers, e_j + 1, because the paper explains
    the weights as relative costs. PABEE's exit criterion is `patience`, with a
    threshold of its patience plus 1.
    """
    layers = settings.exits.layers
    assert len(layers) == num_exits, "exit layers are filled in before this call"
    depths = [layer + 1 for layer in layers]
    weights = tuple(depth / sum(depths) for depth in depths)
    return _make_single(num_exits, Objective((1.0,) * (num_exits - 1), weights))


def make_gradient_equilibrium(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Gradient equilibrium (Li et al. 2019; ElasticBERT, Liu et al. 2022).

    The sum of all CE_j, with gradients rescaled at each exit i (of E): the exit's own
    gradient is multiplied by 1 / (E - i), the gradient from the layers above by
    (E - i - 1) / (E - i). So segment i learns from the mean of its E - i losses instead
    of their sum, and early segments do not get larger gradients than late ones. The
    parameters of each exit get their whole gradient.

    Departures: ElasticBERT uses this for pretraining and fine-tuning, with an exit
        after
    each layer; here it is used for fine-tuning only, with the run's exits. Since seams
    scale gradients, each segment has its own copy of tables that layers share (BERT has
    none).
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
    """Registers a method, so that `method=NAME` trains with it.

    Args:
        name: the name in settings, results and tables.
        method: function of the settings and the number of exits that returns the
            members; None: returns a decorator.
        replace: allows a name that is already registered, for notebook cells that run
            again.

    Returns:
        The function, unchanged.

    Raises:
        ValueError: the name is taken or malformed, or the method is not a function.
    """
    return METHODS.register(name, method, replace=replace)


def make_members(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """Returns the members of the run's method.

    Raises:
        SettingsError: the method is not registered, its settings do not fit the number
            of exits, or its members cannot be trained.
    """
    try:
        method: Method = METHODS.lookup(settings.method)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    members = method(settings, num_exits)
    if problem := find_problem(members, num_exits):
        raise SettingsError(
            f"method={settings.method} with {num_exits} exits: {problem}; correct the"
            " function that is registered under this name"
        )
    return tuple(members)


def separates_segments(members: Sequence[Member]) -> bool:
    """Whether some seam stops or scales gradients in at least one objective.

    A table shared by layers on both sides would bypass that seam, so every segment then
    has its own copy.
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

    Each stage takes train.num_epochs and has its own optimiser, as in the released
    code, so the encoder learns for as many steps as with the other methods. In the
    second stage no gradient enters the encoder: a step costs little more than a forward
    pass.

    Dropout stays on in the frozen encoder and the teacher, as in the released code:
    states that differ between epochs reduce overfitting on few rows.
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
    # A single exit is the last one: there is no second stage.
    phases = (fine_tuning, on_frozen) if last else (fine_tuning,)
    return (Member("", tuple(range(num_exits)), phases),)


def _make_single(num_exits: int, *objectives: Objective) -> tuple[Member, ...]:
    """Returns one member with one phase, whose objectives alternate."""
    phase = Phase(objectives, takes_turns=True)
    return (Member("", tuple(range(num_exits)), (phase,)),)


def _weigh_last(num_exits: int) -> tuple[float, ...]:
    """Returns exit weights: 1 for the last exit, 0 for the others."""
    return (0.0,) * (num_exits - 1) + (1.0,)
