"""What a name map is: rows that say both names of a tensor, read in both directions.

Loading looks a row up by Hugging Face's name, exporting by our path. `{layer}` stands
for a layer's number. The tables themselves are in `name_maps`.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor under both names; a config may leave it out.

    Attributes:
        theirs: Hugging Face's name.
        ours: our path, relative to the encoder.
        transform: `transpose` for kernels (PyTorch stores [out, in], Flax [in, out];
            of convolutions [out, in, window] and [window, in, out]), `same` for all
            else.
    """

    theirs: str
    ours: str
    transform: str = "same"


# name -> (to ours, to theirs)
Transform = Callable[[np.ndarray], np.ndarray]
TRANSFORMS: dict[str, tuple[Transform, Transform]] = {
    "same": (np.asarray, np.asarray),
    "transpose": (np.transpose, np.transpose),
}


def make_dense_rules(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Returns the two rows of a dense map."""
    return (
        Rule(f"{theirs}.weight", f"{ours}/kernel", "transpose"),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    )


def make_norm_rules(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Returns the two rows of a layer norm."""
    return (
        Rule(f"{theirs}.weight", f"{ours}/scale"),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    )


@dataclasses.dataclass(frozen=True)
class NameMap:
    """The table of one family.

    Attributes:
        rules: one row per tensor.
        renames: (pattern, replacement) applied in order to a name before the rows:
            names of older files, prefixes of models with task heads.
        ignored: patterns of (renamed) tensors that are no part of the encoder, or
            none where the config leaves their row out.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]

    @property
    def has_pooler(self) -> bool:
        """Whether the family's encoders come with a pooler."""
        return self.to_theirs("pooler/kernel") is not None

    def to_ours(self, theirs: str) -> tuple[str, str] | None:
        """Returns (our path, transform) of a current name, or None."""
        return _translate(theirs, [(r.theirs, r.ours, r.transform) for r in self.rules])

    def to_theirs(self, ours: str) -> tuple[str, str] | None:
        """Returns (their name, transform) of one of our paths, or None."""
        return _translate(ours, [(r.ours, r.theirs, r.transform) for r in self.rules])

    def rename(self, theirs: str) -> str:
        """Returns the current name of a tensor that an older file may name."""
        for pattern, replacement in self.renames:
            theirs = re.sub(pattern, replacement, theirs)
        return theirs

    def is_ignored(self, theirs: str) -> bool:
        """Whether a (renamed) tensor is known to be no part of the encoder."""
        return any(re.fullmatch(pattern, theirs) for pattern in self.ignored)


def _translate(name: str, rows: list[tuple[str, str, str]]) -> tuple[str, str] | None:
    for source, target, transform in rows:
        pattern = re.escape(source).replace(re.escape("{layer}"), r"(\d+)")
        if match := re.fullmatch(pattern, name):
            return target.format(layer=next(iter(match.groups()), "")), transform
    return None
