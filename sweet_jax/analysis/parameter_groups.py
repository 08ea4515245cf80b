"""Groups of parameters that several exits may share, at three levels.

The finest groups are parts: `layer_3/attention/query`, `layer_3/norms`,
`embeddings/word`. Parts are joined to places (`layer_3`, `embeddings`, `shared_0`), and
places of the encoder to segments. Names come from the parameter paths, so every family
has the groups of its own modules (ModernBERT: `attention/qkv`).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from sweet_jax.models.multi_exit import find_segment

POOLER = "pooler"


@dataclasses.dataclass(frozen=True)
class Part:
    """The parameters of one kind in one place.

    Attributes:
        place: `embeddings`, `layer_0`, ..., `shared_0` (a table that layers share), or
            `pooler` (shared by all exits, under faithful_release).
        kind: modules below the place, such as `attention/query`; `norms` for all norms
            of the place; "" if the place is one module.
        segment: the segment that owns them; exits from this number on reach them.
        paths: paths of the parameters.
    """

    place: str
    kind: str
    segment: int
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """The place, then the kind."""
        return f"{self.place}/{self.kind}" if self.kind else self.place


@dataclasses.dataclass(frozen=True)
class Group:
    """Parts whose inner products are added.

    Attributes:
        name: name, unique within its level.
        level: `part`, `place` or `segment`.
        segment: the segment that owns the parameters.
        members: positions of the parts.
    """

    name: str
    level: Literal["part", "place", "segment"]
    segment: int
    members: tuple[int, ...]


def make_parts(paths: Iterable[str], exit_layers: Sequence[int]) -> tuple[Part, ...]:
    """Returns the parts of a multi-exit model: embeddings, layers by depth, the rest.

    Parameters of a single exit (its pooler, its classifier, its norm) are not included.

    Args:
        paths: paths of all parameters.
        exit_layers: the layer each exit reads.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        root, place, *modules, _ = path.split("/")
        if root == "exits" and place != POOLER:
            continue
        # The norms of a place are small: separately they would be noise.
        kind = "norms" if modules[-1:] == ["norm"] else "/".join(modules)
        found.setdefault((place, kind), []).append(path)
    return tuple(
        Part(place, kind, find_segment(own[0], exit_layers), tuple(own))
        for (place, kind), own in sorted(
            found.items(), key=lambda item: _order_place(item[0][0])
        )
    )


def make_groups(parts: Sequence[Part]) -> tuple[Group, ...]:
    """Returns every part, then every place, then every segment as a group.

    A pooler shared by all exits is a place without segment.
    """
    places = dict.fromkeys((part.place, part.segment) for part in parts)
    owners = sorted({part.segment for part in parts})
    return (
        *(Group(part.name, "part", part.segment, (i,)) for i, part in enumerate(parts)),
        *(
            Group(
                place,
                "place",
                segment,
                tuple(i for i, part in enumerate(parts) if part.place == place),
            )
            for place, segment in places
        ),
        *(
            Group(
                f"segment_{segment}",
                "segment",
                segment,
                tuple(
                    i
                    for i, part in enumerate(parts)
                    if part.segment == segment and part.place != POOLER
                ),
            )
            for segment in owners
        ),
    )


def _order_place(place: str) -> tuple[str, int]:
    """Returns a key that puts layer_10 behind layer_9."""
    name, _, number = place.rpartition("_")
    return (name, int(number)) if number.isdecimal() else (place, 0)
