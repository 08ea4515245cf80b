r"""Tests guarantees on calibration rows that are partly training rows.

    python -m benchmarks.cross_fitting [--draws=300]

A simulation: a few hundred labelled rows are drawn from a known population, a small
network with two exits is trained on them until it overfits, and the cheapest threshold
with a risk of at most epsilon is chosen with probability 1 - delta (`thresholds.risk`).
The true risk of the deployed model is then measured on a large sample of the
population. Ways to get calibration outputs:

    held out     a fifth of the rows is not used for training
    models       each fifth from a model trained on the rest; the deployed model is
                 trained on all rows
    exits        the deployed model is trained on all rows; for each fifth its exits are
                 fitted again without it, on frozen states

Prints a Markdown table: the share of draws that violate the guarantee (at most delta is
allowed), the share of draws that save anything, and the mean cost.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.measuring import print_header, print_row
from sweet_jax.arrays import LogitBank
from sweet_jax.data.calibration_rows import assign_parts
from sweet_jax.exits.calibration import Calibration
from sweet_jax.thresholds.risk import choose_risk
from sweet_jax.thresholds.risk_control import mark_errors
from sweet_jax.thresholds.sequences import find_exits

FOLDS, DELTA = 5, 0.1
EPSILONS = (0.02, 0.05, 0.1)
NUM_ROWS = 480
_FEATURES, _WIDTH, _FIRST_WIDTH, _POPULATION = 12, 64, 24, 20_000
_COSTS_E = np.array([0.5, 1.0])
_STEPS, _EXIT_STEPS = 300, 100
_LABEL_NOISE = 0.02


def sample(rng: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features, and labels with a linear and a nonlinear part."""
    x = rng.normal(size=(num_rows, _FEATURES)).astype(np.float32)
    z = x[:, :3].sum(axis=1) + 3 * x[:, 3] * x[:, 4]
    flipped = rng.random(num_rows) < _LABEL_NOISE
    return x, ((z > 0) ^ flipped).astype(np.int32)


def compute_states(params: Any, x: Any) -> tuple[Any, Any]:
    """Returns the inputs of both exits; the first sees only part of its layer."""
    h = jnp.tanh(x @ params["first"])
    return h[:, :_FIRST_WIDTH], jnp.tanh(h @ params["second"])


def compute_logits(exits: Any, states: tuple[Any, Any]) -> Any:
    """Returns the logits of both exits, [N, E, C]."""
    return jnp.stack([h @ w for h, w in zip(states, exits, strict=True)], axis=1)


def compute_loss(logits: Any, labels: Any, weights: Any) -> Any:
    """Returns the sum over exits of weighted mean cross-entropies."""
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.broadcast_to(labels[:, None], logits.shape[:2])
    )
    return (losses.sum(axis=1) * weights).sum() / weights.sum()


def _minimise(loss: Any, params: Any, steps: int) -> Any:
    optimizer = optax.adam(0.01)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    return params


def train(x: Any, labels: Any, weights: Any, key: Any) -> Any:
    """Returns a network trained on the rows of weight 1."""
    a, b, c, d = jax.random.split(key, 4)
    params = {
        "first": jax.random.normal(a, (_FEATURES, _WIDTH)) / _FEATURES**0.5,
        "second": jax.random.normal(b, (_WIDTH, _WIDTH)) / _WIDTH**0.5,
        "exits": tuple(
            0.1 * jax.random.normal(k, (width, 2))
            for k, width in ((c, _FIRST_WIDTH), (d, _WIDTH))
        ),
    }

    def loss(params: Any) -> Any:
        logits = compute_logits(params["exits"], compute_states(params, x))
        return compute_loss(logits, labels, weights)

    return _minimise(loss, params, _STEPS)


def refit_exits(states: Any, labels: Any, weights: Any) -> Any:
    """Returns newly fitted exits on frozen states."""
    zeros = tuple(jnp.zeros((width, 2)) for width in (_FIRST_WIDTH, _WIDTH))

    def loss(exits: Any) -> Any:
        return compute_loss(compute_logits(exits, states), labels, weights)

    return _minimise(loss, zeros, _EXIT_STEPS)


@jax.jit
def run_draw(
    x: Any, labels: Any, folds: Any, population: Any, key: Any
) -> dict[str, tuple[Any, Any]]:
    """Returns, by way, (calibration logits of all rows, logits on the population)."""
    weights_F = (folds[None] != jnp.arange(FOLDS + 1)[:, None]).astype(jnp.float32)
    # No row is in the last fold, so its model is trained on all rows.
    models = jax.vmap(lambda w: train(x, labels, w, key))(weights_F)

    def answer(params: Any, rows: Any) -> Any:
        return compute_logits(params["exits"], compute_states(params, rows))

    last = jax.tree.map(lambda leaf: leaf[-1], models)
    first = jax.tree.map(lambda leaf: leaf[0], models)
    of_models = jax.vmap(answer, (0, None))(models, x)
    states = compute_states(last, x)
    exits = jax.vmap(lambda w: refit_exits(states, labels, w))(weights_F[:-1])
    of_exits = jax.vmap(lambda e: compute_logits(e, states))(exits)
    rows = jnp.arange(len(x))
    in_use = answer(last, population)
    return {
        "held out": (of_models[0], answer(first, population)),
        "models": (of_models[folds, rows], in_use),
        "exits": (of_exits[folds, rows], in_use),
    }


def make_bank(logits: Any, labels: np.ndarray) -> LogitBank:
    """Returns a bank with two parts of rows, as in a run."""
    return LogitBank(
        logits=np.asarray(logits),
        labels=labels,
        weights=np.ones(len(labels)),
        row_ids=np.arange(len(labels)),
        part=assign_parts(labels),
    )


def measure(
    calibration: Calibration, population: LogitBank, epsilon: float
) -> tuple[float, float, bool]:
    """Returns risk and cost on the population, and whether anything is saved."""
    choice = choose_risk(calibration, epsilon, delta=DELTA)
    rows = calibration.apply(population)
    exits_N = find_exits(rows.score("confidence"), np.array([choice.thresholds]))[0]
    errors_NE = mark_errors("accuracy_loss", rows.predictions, population.labels)
    risk = errors_NE[np.arange(len(exits_N)), exits_N].mean()
    return float(risk), float(_COSTS_E[exits_N].mean()), choice.feasible


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    many_x, many_labels = sample(rng, _POPULATION)
    found: dict[tuple[str, float], list[tuple[float, float, bool]]] = {}
    accuracies = []
    for draw in range(options.draws):
        x, labels = sample(rng, options.rows)
        folds = rng.permutation(np.arange(options.rows) % FOLDS)
        ways = run_draw(x, labels, folds, many_x, jax.random.key(draw))
        for way, (logits, on_many) in ways.items():
            bank = make_bank(logits, labels)
            if way == "held out":
                bank = bank.select(folds == 0)
                bank.part[:] = assign_parts(bank.labels)
            population = make_bank(on_many, many_labels)
            calibration = Calibration.fit(bank, _COSTS_E, "accuracy")
            right_NE = np.asarray(on_many).argmax(axis=2) == many_labels[:, None]
            accuracies.append(right_NE.mean(axis=0))
            for epsilon in EPSILONS:
                measured = measure(calibration, population, epsilon)
                found.setdefault((way, epsilon), []).append(measured)
    exits = np.mean(accuracies, axis=0)
    print(
        f"{options.draws} draws of {options.rows} rows, delta {DELTA}; accuracy of the"
        f" exits {exits[0]:.3f} {exits[1]:.3f}\n"
    )
    print_header(
        "calibration",
        "epsilon",
        "guarantee violated",
        "something saved",
        "mean risk",
        "mean cost",
    )
    for (way, epsilon), measured in found.items():
        risks, costs, feasible = map(np.array, zip(*measured, strict=True))
        print_row(
            way,
            epsilon,
            f"{np.mean(risks > epsilon):.3f}",
            f"{feasible.mean():.2f}",
            f"{risks.mean():.4f}",
            f"{costs.mean():.3f}",
        )


if __name__ == "__main__":
    main()
