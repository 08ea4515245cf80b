"""One line about an exception that other code has raised: a library, or a user's."""

from sweet_jax.system.files import show

_MOST_CHARACTERS = 200


def describe_error(error: BaseException) -> str:
    """Returns the exception's type and first line, such as `KeyError: 'label'`."""
    name, line = type(error).__name__, _find_first_line(error)
    return f"{name}: {line}" if line else name


def describe_reason(error: BaseException) -> str:
    """Returns the exception's first line, or its type if it has no message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _find_first_line(error) or type(error).__name__


def _find_first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return show(lines[0])[:_MOST_CHARACTERS] if lines else ""
