"""Names that a person gave, against those that there are."""

import difflib
from collections.abc import Iterable

# Of names in a message.
_MOST_NAMES = 30


def describe_unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """Returns the line for a name that is not among those allowed.

    Args:
        what: the setting, option or kind that the name was given as.
        name: as given.
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
    """Returns `did you mean X?`, or an empty text where nothing is close.

    Args:
        name: as given.
        allowed: all names.
        cutoff: how alike two names must be, from 0 to 1.
        most: how many names to show.
    """
    close = find_close(name, allowed, cutoff, most)
    return f"did you mean {' or '.join(close)}?" if close else ""


def find_close(
    name: str, allowed: Iterable[str], cutoff: float = 0.6, most: int = 1
) -> list[str]:
    """Returns the names that are most alike, best first; see `suggest`."""
    return difflib.get_close_matches(name, tuple(allowed), n=most, cutoff=cutoff)
