"""Linear probes of frozen states: baselines, and a start of exits (`exits.init=probe`).

Fitting a linear classifier to the frozen states before everything is fine-tuned is
LP-FT (Kumar et al., ICLR 2022, "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution"). There the fine-tuned model has one linear layer on
the states; here an exit has a tanh between its pooler and its classifier, so it equals
the probe to first order.
"""

import dataclasses
import warnings

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.exits.temperatures import RELEASED_RANGE, fit_temperatures

# Standard deviations of a state that enter the tanh as 1: it is nearly linear on most
# values, 3 tanh(z / 3) = z - z^3 / 27 + ...
TANH_SPREADS = 3.0
# Smallest spread that a dimension is divided by, as a share of the largest: a dimension
# that is constant but for rounding errors stays small, and so do its gradients.
_LEAST_SPREAD = 1e-3
# Inverse strengths of logistic regression, as in scikit-learn, to choose from: the
# training rows decide. A probe that is too certain of them leaves nothing to learn.
_STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# Where no class has two training rows, none can be left out.
_USUAL_STRENGTH = 1e-1
_MOST_ITERATIONS = 200
# Parts of the rows that are left out, one after the other; with many numbers (rows x
# dimensions x classes) only the first, and of fewer rows.
_NUM_FOLDS = 4
_NUMBERS_OF_FOLDS, _MOST_NUMBERS_OF_FOLDS = 30_000_000, 100_000_000
LOGISTIC, RIDGE = "logistic regression", "ridge"
# Strength of ridge regression.
_RIDGE_ALPHA = 100.0
# Most rows x dimensions x classes for logistic regression. It took 26 s on two busy
# cores at 0.86e9 (15,000 rows, 384 dimensions, 150 classes); ridge regression took 3 s,
# and was less accurate by 4 points or more there.
_MOST_NUMBERS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier of standardised states.

    Its logits are ((x - mean) / spread) @ kernel + bias. `model` is LOGISTIC or RIDGE.
    """

    model: str
    mean_D: Float[np.ndarray, " D"]
    spread_D: Float[np.ndarray, " D"]
    kernel_DC: Float[np.ndarray, "D C"]
    bias_C: Float[np.ndarray, " C"]

    def compute_logits(
        self, states_ND: Float[np.ndarray, "N D"]
    ) -> Float[np.ndarray, "N C"]:
        """Returns the logits of some states."""
        standardised_ND = (states_ND - self.mean_D) / self.spread_D
        return standardised_ND @ self.kernel_DC + self.bias_C

    def make_exit(self) -> Params:
        """Returns the float32 pooler and classifier that compute the probe.

        tanh divides each standardised dimension by `TANH_SPREADS` to first order, and
        the classifier multiplies it back: a dimension of z spreads is off by at most
        |z|^3 / 27 spreads.
        """
        narrow_D = 1 / (TANH_SPREADS * self.spread_D)
        exit_params = {
            "pooler": {"kernel": np.diag(narrow_D), "bias": -self.mean_D * narrow_D},
            "classifier": {
                "kernel": TANH_SPREADS * self.kernel_DC,
                "bias": self.bias_C,
            },
        }
        return {
            name: {key: leaf.astype(np.float32) for key, leaf in part.items()}
            for name, part in exit_params.items()
        }


def fit_probe(
    states_ND: Float[np.ndarray, "N D"],
    labels_N: Int[np.ndarray, " N"],
    num_classes: int,
) -> Probe:
    """Returns a logistic regression of the states.

    Its strength is the one with the best likelihood of training rows that are left out.
    Where that would take minutes, it is a ridge regression in closed form, whose
    outputs are scaled to logits. A class without rows gets the same logit everywhere,
    below that of some other class.

    Args:
        states_ND: frozen states of the training rows.
        labels_N: their classes, at least two different ones.
        num_classes: number of classes C.
    """
    mean_D = states_ND.mean(axis=0, dtype=np.float64)
    spread_D = states_ND.std(axis=0, dtype=np.float64)
    if spread_D.max() == 0:  # All rows have one state: the bias alone is learned.
        spread_D = np.ones_like(spread_D)
    spread_D = np.maximum(spread_D, _LEAST_SPREAD * spread_D.max())
    standardised_ND = (states_ND - mean_D.astype(np.float32)) / spread_D.astype(
        np.float32
    )
    present_P, labels_N = np.unique(labels_N, return_inverse=True)
    assert len(present_P) > 1, "splits refuse training rows of a single class"
    if _count_numbers(standardised_ND, labels_N) > _MOST_NUMBERS:
        model, (kernel_DP, bias_P) = RIDGE, _fit_ridge(standardised_ND, labels_N)
    else:
        model = LOGISTIC
        # Two threads of BLAS wait for each other: beside other work on two cores, a fit
        # took 78 s in place of 1.5 s.
        with threadpool_limits(1):
            strength = _choose_strength(standardised_ND, labels_N)
            kernel_DP, bias_P = _fit_logistic(standardised_ND, labels_N, strength)
    kernel_DC = np.zeros((len(mean_D), num_classes))
    kernel_DC[:, present_P] = kernel_DP
    # Below some other logit, because the sum of these is not negative.
    bias_C = np.full(num_classes, -np.log(len(labels_N)))
    bias_C[present_P] = bias_P
    return Probe(model, mean_D, spread_D, kernel_DC, bias_C)


def _count_numbers(
    z_ND: Float[np.ndarray, "N D"], labels_N: Int[np.ndarray, " N"]
) -> int:
    """Returns rows x dimensions x classes, where two classes count as one."""
    num_classes = int(labels_N.max()) + 1
    return z_ND.size * (num_classes if num_classes > 2 else 1)


def _choose_strength(
    z_ND: Float[np.ndarray, "N D"], labels_N: Int[np.ndarray, " N"]
) -> float:
    """Returns the strength with the best mean likelihood of rows left out.

    Strengths are tried from the smallest on, until one is worse than the one before.

    Args:
        z_ND: standardised states.
        labels_N: classes from 0 on; every class has rows.
    """
    num_numbers = _count_numbers(z_ND, labels_N)
    num_rows = len(labels_N) * min(1.0, _MOST_NUMBERS_OF_FOLDS / num_numbers)
    order_N = np.random.default_rng(0).permutation(len(labels_N))[: int(num_rows)]
    z_ND, labels_N = z_ND[order_N], labels_N[order_N]
    counts = np.bincount(labels_N)
    num_folds = min(_NUM_FOLDS, counts.max())
    if num_folds < 2:
        return _USUAL_STRENGTH
    with warnings.catch_warnings():
        # A class may have fewer rows than there are folds.
        warnings.simplefilter("ignore", UserWarning)
        folds = [*StratifiedKFold(num_folds).split(z_ND, labels_N)]
    folds = [
        (rest, held_out)
        for rest, held in folds[: max(1, _NUMBERS_OF_FOLDS // num_numbers)]
        if len(held_out := held[np.isin(labels_N[held], labels_N[rest])])
        and len(np.unique(labels_N[rest])) > 1
    ]
    best, best_loss = _USUAL_STRENGTH, np.inf
    for strength in _STRENGTHS if folds else ():
        losses = []
        for rest, held in folds:
            present_P, rest_labels = np.unique(labels_N[rest], return_inverse=True)
            kernel_DP, bias_P = _fit_logistic(z_ND[rest], rest_labels, strength)
            shares = special.log_softmax(z_ND[held] @ kernel_DP + bias_P, axis=1)
            columns = np.searchsorted(present_P, labels_N[held])
            losses.extend(-shares[np.arange(len(held)), columns])
        loss = float(np.mean(losses))
        if loss > best_loss:
            break
        best, best_loss = strength, loss
    return best


def _fit_logistic(
    z_ND: Float[np.ndarray, "N D"], labels_N: Int[np.ndarray, " N"], strength: float
) -> tuple[Float[np.ndarray, "D C"], Float[np.ndarray, " C"]]:
    """Returns kernel and bias of a logistic regression; every class has rows."""
    model = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Close is enough to start.
        model.fit(z_ND, labels_N)
    kernel_CD, bias_C = model.coef_, np.asarray(model.intercept_)
    if len(kernel_CD) == 1:  # Of two classes it has the difference of their logits.
        kernel_CD = np.concatenate([-kernel_CD, kernel_CD]) / 2
        bias_C = np.concatenate([-bias_C, bias_C]) / 2
    return kernel_CD.T, bias_C


def _fit_ridge(
    z_ND: Float[np.ndarray, "N D"], labels_N: Int[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "D C"], Float[np.ndarray, " C"]]:
    """Returns kernel and bias of a ridge regression of 0 and 1, scaled to logits.

    The scale is the inverse of a temperature. It is fitted on each row's outputs of the
    regression on all other rows, which have a closed form, because the outputs of a
    row's own regression are too certain.
    """
    num_rows, num_dimensions = z_ND.shape
    targets_NC = np.eye(labels_N.max() + 1, dtype=np.float32)[labels_N]
    gram_DD = (z_ND.T @ z_ND).astype(np.float64)
    factor = linalg.cho_factor(gram_DD + _RIDGE_ALPHA * np.eye(num_dimensions))
    # The states have mean 0, so the bias is the mean of the targets.
    kernel_DC = linalg.cho_solve(factor, z_ND.T @ targets_NC)
    bias_C = targets_NC.mean(axis=0, dtype=np.float64)
    outputs_NC = z_ND @ kernel_DC.astype(np.float32) + bias_C
    influence_N = 1 / num_rows + np.einsum(
        "nd,nd->n", z_ND, z_ND @ linalg.cho_solve(factor, np.eye(num_dimensions))
    )
    errors_NC = (targets_NC - outputs_NC) / (1 - influence_N[:, None])
    held_out_NC = (targets_NC - errors_NC).astype(np.float32)
    zeros_N = np.zeros(num_rows, np.int32)
    bank = LogitBank(
        logits=held_out_NC[:, None],
        labels=labels_N,
        weights=np.ones(num_rows, np.float32),
        row_ids=zeros_N,
        part=zeros_N,
    )
    (temperature,) = fit_temperatures(bank, RELEASED_RANGE)
    return kernel_DC / temperature, bias_C / temperature
