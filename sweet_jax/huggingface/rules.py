"""Name maps: tables whose rows have both names of a tensor.

Loading looks up a row by Hugging Face's name, exporting by our path. `{layer}` stands
for a layer's number. The tables themselves are in `name_maps`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """Both names of a tensor; some configs do not have the tensor.

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


# Prefixes of tensor names from models that contain the encoder: data-parallel training,
# torch.compile, sentence-transformers, and custom classes.
_WRAPPER = re.compile(
    r"(module|_orig_mod|model|base_model|auto_model|0\.auto_model|transformer"
    r"|encoder\.(module|_orig_mod|model|auto_model)"
    r"|encoder(?=\.(bert|roberta|mpnet|deberta)\.))\."
)

# name -> (to ours, to theirs)
Transform = Callable[[np.ndarray], np.ndarray]
TRANSFORMS: dict[str, tuple[Transform, Transform]] = {
    "same": (np.asarray, np.asarray),
    "transpose": (np.transpose, np.transpose),
}


def make_dense_rules(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Returns the two rows of a dense layer."""
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
        renames: (pattern, replacement), applied in order to a name before the look-up:
            names of older files, prefixes of models with task heads.
        ignored: patterns of (renamed) tensors that are not part of the encoder, or not
            with every config.
        buffers: patterns of (renamed) tensors that some versions of transformers
            stored, although they follow from the config.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    buffers: tuple[str, ...] = (
        r"embeddings\.position_ids",
        r"embeddings\.token_type_ids",
    )

    @property
    def has_pooler(self) -> bool:
        """Whether the family's checkpoints have a pooler."""
        return self.to_theirs("pooler/kernel") is not None

    def to_ours(self, theirs: str) -> tuple[str, str] | None:
        """Returns (our path, transform) of a current name, or None."""
        return _translate(theirs, self._by_theirs)

    def to_theirs(self, ours: str) -> tuple[str, str] | None:
        """Returns (their name, transform) of one of our paths, or None."""
        return _translate(ours, self._by_ours)

    def rename(self, theirs: str) -> str:
        """Returns the current name of a tensor whose name is old or has a prefix."""
        while match := _WRAPPER.match(theirs):
            theirs = theirs[match.end() :]
        for pattern, replacement in self.renames:
            theirs = re.sub(pattern, replacement, theirs)
        return theirs

    def find_prefix(self, theirs: str) -> str | None:
        """Returns the prefix before a name that the table has, or None."""
        parts = theirs.split(".")
        for i in range(1, min(len(parts), 10)):
            if self.to_ours(self.rename(".".join(parts[i:]))) is not None:
                return ".".join(parts[:i]) + "."
        return None

    def is_ignored(self, theirs: str) -> bool:
        """Whether a (renamed) tensor is known not to be part of the encoder."""
        known = (*self.ignored, *self.buffers)
        return any(re.fullmatch(pattern, theirs) for pattern in known)

    def is_buffer(self, theirs: str) -> bool:
        """Whether a (renamed) tensor follows from the config and is safe to ignore."""
        return any(re.fullmatch(pattern, theirs) for pattern in self.buffers)

    @functools.cached_property
    def _by_theirs(self) -> dict[str, tuple[str, str]]:
        return {rule.theirs: (rule.ours, rule.transform) for rule in self.rules}

    @functools.cached_property
    def _by_ours(self) -> dict[str, tuple[str, str]]:
        return {rule.ours: (rule.theirs, rule.transform) for rule in self.rules}


def _translate(name: str, rows: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    layer = ""
    if name not in rows and (match := re.search("[0-9]+", name)):
        # The first number in a name is that of its layer.
        layer = match[0]
        name = f"{name[: match.start()]}{{layer}}{name[match.end() :]}"
    if name not in rows:
        return None
    target, transform = rows[name]
    return target.format(layer=layer), transform
