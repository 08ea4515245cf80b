"""How many steps of a sequence of cascades have a risk that is shown to be small.

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, 2021): for each step of a
sequence "this cascade's risk is above epsilon" is a hypothesis, and rejecting it lets
the step be used. A risk here is the chance of an error on one input, so that the errors
among n independent rows are binomial and the p-value is an exact tail. Steps are tested
in order, each at the full level delta, up to the first that is not rejected (fixed-
sequence testing). A wrong promise has to get past the first step whose risk is above
epsilon, which has a chance of at most delta, however many steps there are. The order
must not depend on the rows that are tested on.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

# Beyond this many rows the answer to "how many?" is: none that anybody has.
_MOST_ROWS = 10**9


def _lose(predictions_NE: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    right_NE = predictions_NE == labels_N[:, None]
    return right_NE[:, -1:] & ~right_NE


def _differ(predictions_NE: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    return predictions_NE != predictions_NE[:, -1:]


# What counts as an error when an exit answers instead of the last one. An accuracy loss
# is a right answer lost: accuracy drops by the chance of it less that of a right answer
# gained, so by no more. A disagreement is any other answer, and needs no label.
RISKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy_loss": _lose,
    "disagreement": _differ,
}


def mark_errors(
    risk: str,
    predictions_NE: Int[np.ndarray, "N E"],
    labels_N: Int[np.ndarray, " N"],
) -> Bool[np.ndarray, "N E"]:
    """Returns where it is an error that an exit answers; never at the last exit.

    Args:
        risk: `accuracy_loss` (the full model is right, the exit wrong) or
            `disagreement` (the exit answers differently from the full model).
        predictions_NE: the class each exit answers.
        labels_N: class indices.

    Raises:
        ValueError: the risk is unknown.
    """
    if risk not in RISKS:
        raise ValueError(f"risk={risk!r}: allowed are {', '.join(RISKS)}")
    return RISKS[risk](predictions_NE, labels_N)


def compute_p_values(
    errors: Int[np.ndarray, "*T"], num_rows: int, epsilon: float
) -> Float[np.ndarray, "*T"]:
    """Returns P(Binomial(n, epsilon) <= errors): the p-value of "risk > epsilon"."""
    from scipy import stats  # Takes half a second, and few choices need it.

    return np.asarray(stats.binom.cdf(errors, num_rows, epsilon))


def count_certified(
    errors: Int[np.ndarray, "*D T"], num_rows: int, epsilon: float, delta: float
) -> Int[np.ndarray, "*D"]:
    """Returns how many steps, from the first on, pass fixed-sequence testing.

    With probability at least 1 - delta over the rows all of them have a risk of at most
    epsilon. For epsilon' > epsilon the count is at least as large.

    Args:
        errors: of each step of the sequence, the rows that err; leading axes are
            independent draws of the rows.
        num_rows: rows in a draw.
        epsilon: the risk that is allowed.
        delta: the chance of a wrong promise that is allowed.
    """
    passed = compute_p_values(errors, num_rows, epsilon) <= delta
    return np.asarray(np.logical_and.accumulate(passed, axis=-1).sum(axis=-1))


def compute_upper_bound(errors: int, num_rows: int, delta: float) -> float:
    """Returns the least epsilon at which so many errors pass (Clopper-Pearson)."""
    from scipy import stats

    if errors >= num_rows:
        return 1.0
    return float(stats.beta.ppf(1 - delta, errors + 1, num_rows - errors))


def count_rows_needed(
    epsilon: float, delta: float, error_rate: float = 0.0
) -> int | None:
    """Returns how many rows would pass if errors came at this rate.

    Without errors these are the least n with (1 - epsilon)^n <= delta: 230 at epsilon
    0.01 and delta 0.1. None where the rate is epsilon or more, or so close below that
    a billion rows would not do.
    """
    if error_rate >= epsilon:
        return None

    def count_rows(errors: int) -> int:
        # The binomial tail as a bare function: this is asked hundreds of times.
        return _find_least(
            lambda n: bool(special.bdtr(errors, n, epsilon) <= delta), errors + 1
        )

    # More errors are a larger share of the rows that forgive them, up to epsilon; a
    # share that the rate does not exceed is one that these rows would show.
    errors = _find_least(lambda k: k >= error_rate * count_rows(k), 0)
    num_rows = count_rows(errors)
    return num_rows if num_rows < _MOST_ROWS else None


def check_level(name: str, value: float) -> None:
    """Raises ValueError unless the value is a probability between 0 and 1."""
    # Written so that NaN is refused too.
    if not 0 < value < 1:
        raise ValueError(f"{name}={value}: allowed is a number above 0 and below 1")


def _find_least(holds: Callable[[int], bool], start: int) -> int:
    """Returns the least n >= start where `holds`, which stays true once it is.

    At most `_MOST_ROWS`, whether it holds there or not.
    """
    step = 1
    low, high = start, start
    while high < _MOST_ROWS and not holds(high):
        low, high, step = high + 1, min(high + step, _MOST_ROWS), 2 * step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
