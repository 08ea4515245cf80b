"""Logit banks of made-up exits, and their calibration, for tests of thresholds."""

import numpy as np

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.cascade import costs_from_layers
from sweet_jax.exits.calibration import Calibration

LAYERS = (0, 1, 3, 5)
COSTS_E = costs_from_layers(LAYERS)


def make_bank(
    rng: np.random.Generator, num_rows: int = 600, noise: float = 1.0
) -> LogitBank:
    """Exits that know more of the label the deeper they are; parts take turns."""
    labels_N = rng.integers(0, 3, num_rows)
    knowledge_E = np.array([1.5, 2.5, 3.5, 4.0])
    truth_NC = np.eye(3)[labels_N]
    # Exits share most of their noise, as exits of one encoder do.
    shared_N1C = rng.normal(size=(num_rows, 1, 3))
    own_NEC = 0.5 * rng.normal(size=(num_rows, 4, 3))
    logits_NEC = noise * (shared_N1C + own_NEC)
    logits_NEC += knowledge_E[None, :, None] * truth_NC[:, None]
    return LogitBank(
        logits=logits_NEC.astype(np.float32),
        labels=labels_N,
        weights=np.ones(num_rows),
        row_ids=np.arange(num_rows),
        part=np.arange(num_rows) % 2,
    )


def make_calibration(bank: LogitBank, metric: str = "accuracy") -> Calibration:
    """Returns the calibration of exits that need no temperature."""
    costs_E = COSTS_E[-bank.num_exits :]
    ones_E = np.ones(bank.num_exits, np.float32)
    return Calibration(bank, ones_E, None, costs_E, metric)
