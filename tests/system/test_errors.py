"""One line about any exception, safe for a terminal."""

import pytest

from sweet_jax.system.errors import describe_error, describe_reason


@pytest.mark.parametrize(
    ("error", "reason", "described"),
    [
        (ValueError("no rows\nat all"), "no rows", "ValueError: no rows"),
        (KeyError("label"), "'label'", "KeyError: 'label'"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError("\n \n"), "ValueError", "ValueError"),
        (ValueError("\n the cause"), "the cause", "ValueError: the cause"),
        (RuntimeError("\x1b[31mred"), r"\x1b[31mred", r"RuntimeError: \x1b[31mred"),
        (
            OSError(28, "No space left on device", "a.csv"),
            "No space left on device",
            "OSError: [Errno 28] No space left on device: 'a.csv'",
        ),
        (ValueError("x" * 300), "x" * 200, f"ValueError: {'x' * 200}"),
    ],
)
def test_an_error_is_one_bounded_line(error, reason, described):
    assert describe_reason(error) == reason
    assert describe_error(error) == described
