"""The share of the gradient that crosses the seams: one number, several, a schedule.

Three fields of the settings hold it, for method=sweet only; at most one of them is set.
As text it is part of the method's name: `sweet(a=0.2)`.
"""

import re
from typing import Any

from sweet_jax.settings.fields import Settings
from sweet_jax.settings.registries import METHODS
from sweet_jax.settings.rules import OneOf, SettingsError

_SEPARATORS = {"/": "boundary_gradient_scales", ">": "boundary_gradient_phases"}


def parse_method(text: str) -> dict[str, Any]:
    """Parses a method as `Settings.method_label` formats it.

    Args:
        text: a method's name, or `sweet(a=0.2)`, `sweet(a=0.2/0.5/0)` (one share per
            seam), `sweet(a=1>0)` (one for each equal part of the training).

    Returns:
        Dotted field name -> value: `method`, and the field that the parentheses set.
        Their ranges are checked later, with all other fields.

    Raises:
        SettingsError: the text has another form.
    """
    match = re.fullmatch(r"(\w+)\(a=([^()]*)\)", text)
    name = match[1] if match else text
    OneOf(registry=METHODS).check("method", name)
    if match is None:
        return {"method": name}
    try:
        for separator, field in _SEPARATORS.items():
            if separator in match[2]:
                numbers = tuple(float(part) for part in match[2].split(separator))
                return {"method": name, field: numbers}
        return {"method": name, "boundary_gradient_scale": float(match[2])}
    except ValueError as error:
        raise SettingsError(
            f"method={text!r}: allowed are one number (a=0.2), one per seam"
            " (a=0.2/0.5/0), or one for each equal part of the training (a=1>0)"
        ) from error


def check_seams(settings: Settings) -> None:
    """Raises SettingsError unless at most one of the three fields is set, and valid."""
    a = settings.boundary_gradient_scale
    if not 0 <= a < 1:
        raise SettingsError(
            f"boundary_gradient_scale={a}: allowed is 0 <= a < 1 (1 is early_exit)"
        )
    given: dict[str, Any] = {"boundary_gradient_scale": a} if a else {}
    for name in _SEPARATORS.values():
        scales = getattr(settings, name)
        if not scales:
            continue
        if any(not 0 <= scale <= 1 for scale in scales):
            raise SettingsError(f"{name}={scales}: allowed are numbers from 0 to 1")
        if all(scale == 1 for scale in scales):
            raise SettingsError(
                f"{name}={scales} stops no gradient: set method=early_exit, or lower"
                " one of the numbers"
            )
        if len(scales) == 1:
            raise SettingsError(
                f"{name}={scales} is one number: set"
                f" boundary_gradient_scale={scales[0]}"
            )
        given[name] = scales
    shown = " and ".join(f"{name}={value}" for name, value in given.items())
    if len(given) > 1:
        raise SettingsError(f"{shown} contradict each other: set only one of them")
    if given and settings.method != "sweet":
        raise SettingsError(
            f"{shown} belongs to method=sweet, not to {settings.method}: drop it or set"
            " method=sweet"
        )
    if settings.exits.layers:
        check_seam_scales(settings.boundary_gradient_scales, len(settings.exits.layers))


def check_seam_scales(scales: tuple[float, ...], num_exits: int) -> None:
    """Raises SettingsError unless there is one number per seam, or no number."""
    if scales and len(scales) != num_exits - 1:
        raise SettingsError(
            f"boundary_gradient_scales={scales} has {len(scales)} numbers, but"
            f" {num_exits} exits have {num_exits - 1} seams between them: give"
            f" {num_exits - 1}"
        )
