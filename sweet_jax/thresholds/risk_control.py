"""Tests which cascades of a sequence have a risk of at most epsilon.

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, 2021): for each cascade
the null hypothesis is that its risk is above epsilon; only cascades for which it is
rejected may be used. The risk is the probability of an error on one input, so the
number of errors among n independent rows is binomial and the p-value is an exact tail.
Steps are tested in order, each at level delta, and testing stops at the first that is
not rejected (fixed-sequence testing). A wrong guarantee requires the wrong rejection of
the first step whose risk is above epsilon, which has probability at most delta for any
number of steps. The order must not depend on the rows used for testing.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

# The search for a number of rows stops here: no data set is larger.
_MOST_ROWS = 10**9


def _lose(
    predictions_NE: np.ndarray, labels_N: np.ndarray, full_N: np.ndarray
) -> np.ndarray:
    return (full_N == labels_N)[:, None] & (predictions_NE != labels_N[:, None])


def _differ(
    predictions_NE: np.ndarray, labels_N: np.ndarray, full_N: np.ndarray
) -> np.ndarray:
    return predictions_NE != full_N[:, None]


# What counts as an error when an exit answers instead of the full model.
# accuracy_loss: the full model is right and the exit wrong. The drop in accuracy is the
# probability of that minus the probability of the reverse, so it is at most this risk.
# disagreement: the predictions differ; it needs no label.
RISKS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy_loss": _lose,
    "disagreement": _differ,
}


def mark_errors(
    risk: str,
    predictions_NE: Int[np.ndarray, "N E"],
    labels_N: Int[np.ndarray, " N"],
    full_N: Int[np.ndarray, " N"] | None = None,
) -> Bool[np.ndarray, "N E"]:
    """Marks the predictions that count as errors.

    Args:
        risk: `accuracy_loss` (the full model is right, the exit wrong) or
            `disagreement` (the exit predicts another class than the full model).
        predictions_NE: the class that each exit predicts.
        labels_N: class indices.
        full_N: the class that the full model predicts; None: that of the last exit,
            which then never errs.

    Raises:
        ValueError: the risk is unknown.
    """
    if risk not in RISKS:
        raise ValueError(f"risk={risk!r}: allowed are {', '.join(RISKS)}")
    full_N = predictions_NE[:, -1] if full_N is None else full_N
    return RISKS[risk](predictions_NE, labels_N, full_N)


def compute_p_values(
    errors: Int[np.ndarray, "*T"], num_rows: int, epsilon: float
) -> Float[np.ndarray, "*T"]:
    """Returns P(Binomial(n, epsilon) <= errors): the p-value of "risk > epsilon"."""
    from scipy import stats  # Takes half a second, and few choices need it.

    return np.asarray(stats.binom.cdf(errors, num_rows, epsilon))


def count_certified(
    errors: Int[np.ndarray, "*D T"], num_rows: int, epsilon: float, delta: float
) -> Int[np.ndarray, "*D"]:
    """Returns the number of first steps that pass fixed-sequence testing.

    With probability at least 1 - delta over the rows, all of them have a risk of at
    most epsilon. A larger epsilon never gives a smaller number.

    Args:
        errors: number of rows with an error at each step; leading axes are independent
            draws of the rows.
        num_rows: number of rows in a draw.
        epsilon: largest allowed risk.
        delta: largest allowed probability of a wrong guarantee.
    """
    passed = compute_p_values(errors, num_rows, epsilon) <= delta
    return np.asarray(np.logical_and.accumulate(passed, axis=-1).sum(axis=-1))


def compute_upper_bound(errors: int, num_rows: int, delta: float) -> float:
    """Returns the smallest epsilon that passes with these errors (Clopper-Pearson)."""
    from scipy import stats

    if errors >= num_rows:
        return 1.0
    return float(stats.beta.ppf(1 - delta, errors + 1, num_rows - errors))


def count_rows_needed(
    epsilon: float, delta: float, error_rate: float = 0.0
) -> int | None:
    """Returns the number of rows that pass the test at this error rate.

    Without errors it is the smallest n with (1 - epsilon)^n <= delta: 230 at epsilon
    0.01 and delta 0.1. None if the rate is at least epsilon, or so close to it that a
    billion rows are not enough.
    """
    if error_rate >= epsilon:
        return None
    # Not scipy.stats, which is slow for hundreds of calls. Imported here: it is slow to
    # import, and most serving does not call this.
    from scipy import special

    def count_rows(errors: int) -> int:
        return _find_least(
            lambda n: bool(special.bdtr(errors, n, epsilon) <= delta), errors + 1
        )

    # k errors need count_rows(k) rows to pass. The allowed share k / count_rows(k)
    # rises with k, up to epsilon: take the first k whose share is at least the error
    # rate.
    errors = _find_least(lambda k: k >= error_rate * count_rows(k), 0)
    num_rows = count_rows(errors)
    return num_rows if num_rows < _MOST_ROWS else None


def check_level(name: str, value: float) -> None:
    """Raises ValueError unless the value is a probability between 0 and 1."""
    # NaN fails this comparison, too.
    if not 0 < value < 1:
        raise ValueError(f"{name}={value}: allowed is a number above 0 and below 1")


def _find_least(holds: Callable[[int], bool], start: int) -> int:
    """Returns the smallest n >= start for which the monotone condition `holds`.

    Returns `_MOST_ROWS` if there is no smaller one, without testing it there.
    """
    step = 1
    low, high = start, start
    while high < _MOST_ROWS and not holds(high):
        low, high, step = high + 1, min(high + step, _MOST_ROWS), 2 * step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
