"""ModernBERT's config.json, with the attributes of the hub and of transformers 5.

Published files set the global layers by `global_attn_every_n_layers`, and the bases of
the rotary frequencies by `global_rope_theta` and `local_rope_theta`. Files written by
transformers 5 have `layer_types` and `rope_parameters` instead, and may also keep the
old attributes. transformers then silently uses the new ones; here both must agree.
"""

from collections.abc import Mapping
from typing import Any

from sweet_jax.models.modernbert import GLOBAL, LOCAL
from sweet_jax.system.files import show_names, show_value

_DEFAULT_PERIOD = 3
# Kind of layer -> (the hub's attribute for its base, the default base).
_THETAS = {
    GLOBAL: ("global_rope_theta", 160_000.0),
    LOCAL: ("local_rope_theta", 10_000.0),
}
# Allowed keys of a kind in `rope_parameters`; `type` is the older name of `rope_type`.
_ROTARY_KEYS = {"rope_theta", "rope_type", "type"}


def unify_attributes(attributes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the attributes with `layer_types` and both thetas in one form each.

    Args:
        attributes: the attributes of the config.json.
        source: the file's name in errors.

    Raises:
        ValueError: one of these attributes has a wrong form, contradicts another one,
            or asks for scaled rotary positions.
    """
    try:
        unified = {
            **attributes,
            "layer_types": _read_layer_types(attributes),
            **{_THETAS[kind][0]: _read_theta(attributes, kind) for kind in _THETAS},
        }
        _check_agreement(attributes)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    old = ("global_attn_every_n_layers", "rope_parameters", "layer_norm_eps")
    return {name: value for name, value in unified.items() if name not in old}


def _read_layer_types(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    num_layers = attributes.get("num_hidden_layers")
    if type(num_layers) is not int:
        return ()  # Refused later, under its own name.
    period = attributes.get("global_attn_every_n_layers")
    if period is not None and (type(period) is not int or period < 1):
        raise ValueError(
            f"global_attn_every_n_layers={show_value(period)} must be a whole number of"
            " at least 1"
        )
    listed = attributes.get("layer_types")
    by_period = tuple(
        LOCAL if i % (period or _DEFAULT_PERIOD) else GLOBAL for i in range(num_layers)
    )
    if listed is None:
        return by_period
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise ValueError(
            f"layer_types must be a list of num_hidden_layers={num_layers} names"
        )
    if unknown := [kind for kind in listed if kind not in (GLOBAL, LOCAL)]:
        raise ValueError(
            f"layer_types has {show_value(unknown[0])}: allowed are {GLOBAL!r},"
            f" {LOCAL!r}"
        )
    if period is not None and tuple(listed) != by_period:
        raise ValueError(
            f"layer_types contradicts global_attn_every_n_layers={period}: remove one"
        )
    return tuple(listed)


def _read_theta(attributes: Mapping[str, Any], kind: str) -> float:
    hub_name, default = _THETAS[kind]
    given = {hub_name: attributes[hub_name]} if hub_name in attributes else {}
    rotary = _read_mapping(
        attributes.get("rope_parameters"), "rope_parameters", _THETAS
    )
    prefix = f"rope_parameters.{kind}"
    part = _read_mapping(rotary.get(kind), prefix, _ROTARY_KEYS)
    for name in ("rope_type", "type"):
        if name in part and part[name] != "default":
            raise ValueError(
                f"{prefix}.{name}={show_value(part[name])} is not implemented: allowed"
                " is 'default'"
            )
    if "rope_theta" in part:
        given[f"{prefix}.rope_theta"] = part["rope_theta"]
    for name, theta in given.items():
        # null is refused: versions of transformers interpret it differently.
        if type(theta) not in (int, float) or theta <= 0:
            raise ValueError(f"{name}={show_value(theta)} must be a number above 0")
    if len(set(given.values())) > 1:
        both = " contradicts ".join(
            f"{name}={show_value(theta)}" for name, theta in given.items()
        )
        raise ValueError(f"{both}: remove one")
    return next(iter(given.values()), default)


def _read_mapping(value: Any, name: str, allowed: Any) -> Mapping[str, Any]:
    """Checks that a JSON object has only allowed keys; null counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name}={show_value(value)} is not a JSON object")
    if unknown := sorted(value.keys() - set(allowed)):
        raise ValueError(
            f"{name} has {show_names(unknown)}, not implemented: allowed are"
            f" {', '.join(sorted(allowed))}"
        )
    return value


def _check_agreement(attributes: Mapping[str, Any]) -> None:
    """Checks attributes that would otherwise be ignored, or fail much later.

    Hub files have `layer_norm_eps` beside `norm_eps`, but only the latter is read.
    """
    epsilon = attributes.get("norm_eps")
    other = attributes.get("layer_norm_eps")
    if other is not None and other != (1e-5 if epsilon is None else epsilon):
        raise ValueError(
            f"layer_norm_eps={show_value(other)} contradicts"
            f" norm_eps={show_value(epsilon)}, the only one that is read: remove"
            " layer_norm_eps"
        )
    size, heads = attributes.get("hidden_size"), attributes.get("num_attention_heads")
    if type(size) is int and type(heads) is int and heads > 0 and size // heads % 2:
        raise ValueError(
            f"hidden_size={size} over num_attention_heads={heads} gives heads of odd"
            " width, but rotary positions need an even one"
        )
