"""Training strategies of other early-exit work, for comparison with SWEET.

One model each, trained with an optimiser, rates and exits that all methods share; what
is kept of a source is who learns from which loss, and when. Where else a source's
released code differs stands with each strategy. j counts exits from 0.
"""

from sweet_jax.settings.fields import Settings
from sweet_jax.training.objectives import Member, Objective, Phase


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
    ten times the learning rate; here it starts from the last step, at the same rates.
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
    return (Member("", tuple(range(num_exits)), (fine_tuning, on_frozen)),)


def _make_single(num_exits: int, *objectives: Objective) -> tuple[Member, ...]:
    """Returns a member of one phase whose objectives take turns."""
    phase = Phase(objectives, takes_turns=True)
    return (Member("", tuple(range(num_exits)), (phase,)),)


def _weigh_last(num_exits: int) -> tuple[float, ...]:
    """Returns exit weights of 0, but 1 for the last exit."""
    return (0.0,) * (num_exits - 1) + (1.0,)
