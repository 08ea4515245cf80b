"""Error messages for unknown names, with the closest known names."""

import difflib
from collections.abc import Iterable

# More names are only counted in a message.
_MOST_NAMES = 30


def describe_unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """Returns the error message for a name that is not allowed.

    Args:
        what: the setting, option or kind of the name.
        name: the unknown name.
        allowed: all names.
    """
    allowed = tuple(allowed)
    listed = ", ".join(allowed[:_MOST_NAMES])
    if (more := len(allowed) - _MOST_NAMES) > 0:
        listed += f" and {more} others"
    hint = suggest(str(name), allowed)
    return f"{what}={name!r}: allowed are {listed}{hint and f'; {hint}'}"


def suggest(
    name: str, allowed: Iterable[str], cutoff: float = 0.6, most: int = 1
) -> str:
    """Returns `did you mean X?`, or an empty string if no name is close.

    Args:
        name: the unknown name.
        allowed: all names.
        cutoff: the smallest similarity to suggest, from 0 to 1.
        most: how many names to show.
    """
    close = find_close(name, allowed, cutoff, most)
    return f"did you mean {' or '.join(close)}?" if close else ""


def find_close(
    name: str, allowed: Iterable[str], cutoff: float = 0.6, most: int = 1
) -> list[str]:
    """Returns the closest names, best first; see `suggest`."""
    return difflib.get_close_matches(name, tuple(allowed), n=most, cutoff=cutoff)
