"""Plain data -> typed, frozen dataclasses, or one line with what is wrong."""

import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from decimal import ROUND_FLOOR, Context
from functools import cache
from itertools import chain
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from common.errors import ConfigError

ELSEWHERE = {  # the name of a key in other libraries -> the last part of its name here
    "learning_rate": ("lr",),
    "discount": ("gamma",),
    "n_envs": ("num_envs",),
    "n_epochs": ("epochs",),
    "total_timesteps": ("total_steps",),
    "net_arch": ("hidden",),
    "hidden_sizes": ("hidden",),
    "gradient_steps": ("updates_per_step",),
    "lam": ("gae_lambda",),
    "vf_coef": ("value_coef",),
    "entropy_coef": ("ent_coef", "alpha"),
    "ent_coef": ("alpha",),
    "clip_eps": ("clip_range",),
    "clip_epsilon": ("clip_range",),
    "clip_coef": ("clip_range",),
    "minibatch_size": ("batch_size",),
}
KINDS: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "null",
    list[int]: "a list of integers",
    list[str | dict[str, Any]]: "a list of names, and of groups with a name",
    list: "a list",
    dict: "a group of keys",
}
LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}  # of `operator`, and as they are written
LARGEST = 1e300  # of which twice as much is finite
G = TypeVar("G", bound="Group")
Auto = Literal["auto"]
hints_of: Callable[[Any], dict[str, Any]] = cache(get_type_hints)  # needed many times


def key(
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    before: Any = MISSING,
) -> Any:
    """A field with its meaning and its LIMITS.

    `before` is the value of a newer key in runs that are older than it.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return field(metadata={"doc": doc, "before": before, **given})


@dataclass(frozen=True)
class Group:
    """A group of keys; VARIANTS has the groups that one of its fields may be, by their `name`."""

    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {}

    def check(self) -> None:
        """Raises ConfigError, with its key inside the group, where values do not fit together."""

    def require(self, holds: bool, name: str, why: str, remedy: str) -> None:
        """Raises ConfigError `<name>: <why>; <remedy>` unless `holds`."""
        if not holds:
            raise ConfigError(f"{name}: {why}; {remedy}")


def build(group: type[G], data: Any, prefix: str = "", recorded: bool = False) -> G:
    """Makes `group` from nested dictionaries; `recorded`: those of an existing run.

    Raises ConfigError, with the key in full, for an unknown or missing key (and the nearest valid
    one), a wrong type, a value out of range, and what `check` refuses.
    """
    known = [f"{prefix}{declared.name}" for declared in fields(group)]
    if not isinstance(data, dict):
        why = f"must be a group of keys, got {show(data)}"
        raise ConfigError(f"{prefix[:-1]}: {why}; set a single key, e.g. {known[0]}")
    for name in data:
        if f"{prefix}{name}" not in known:
            raise ConfigError(unknown_key(f"{prefix}{name}", known))
    values, hints = {}, hints_of(group)
    for declared, full in zip(fields(group), known, strict=True):
        name, hint, limits = declared.name, hints[declared.name], declared.metadata
        value = data.get(name, limits.get("before", MISSING) if recorded else MISSING)
        variants = group.VARIANTS.get(name)
        if value is MISSING:
            raise ConfigError(f"{full}: is missing; give it a value")
        if variants and isinstance(value, dict):
            chosen = str(value.get("name"))
            if chosen not in variants:
                if "name" not in value:
                    remedy = f"begin the file with defaults: [{next(iter(variants))}, _self_]"
                    raise ConfigError(f"{full}.name: is missing; {remedy}, or another")
                why = f"{show(chosen)} is not one of {', '.join(variants)}"
                raise ConfigError(f"{full}.name: {why}; correct it")
            hint = variants[chosen]
        if is_group(hint):
            values[name] = build(hint, value, f"{full}.", recorded)
        else:
            values[name] = convert(value, hint, full, limits)
    made = group(**values)
    try:
        made.check()
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
    return made


def is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Group)


def walk(group: type[Group], variant: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(key in full, type, meaning and limits) of every key.

    Of a field that varies, the keys of `variant`, else those that all its variants share.
    """
    hints = hints_of(group)
    for declared in fields(group):
        hint = hints[declared.name]
        if is_group(hint):
            inner = group.VARIANTS.get(declared.name, {}).get(variant, hint)
            yield from ((f"{declared.name}.{name}", *rest) for name, *rest in walk(inner))
        else:
            yield declared.name, hint, declared.metadata


def key_names(group: type[Group], variant: str = "") -> list[str]:
    """All keys of a group in full."""
    return [name for name, _, _ in walk(group, variant)]


def convert(value: Any, hint: Any, name: str, limits: Mapping[str, Any]) -> Any:
    """`value` as the type `hint`, inside its limits; raises ConfigError."""
    if int in alternatives(hint) or hint == list[int]:
        value = whole(value)
    fitting = [candidate for candidate in alternatives(hint) if fits(value, candidate, limits)]
    if not fitting:
        wanted = f"must be {described(hint, limits)}, got {show(value)}"
        named = [get_args(one) for one in alternatives(hint) if get_origin(one) is Literal]
        close = difflib.get_close_matches(str(value)[:200], [*chain(*named)], n=1)
        remedy = f"did you mean {close[0]}?" if close else "give such a value"
        single = isinstance(value, str | int)
        if single and any(fits([value], one, limits) for one in alternatives(hint)):
            remedy = f"give {name}=[{show(value, quote=False)}]"
        raise ConfigError(f"{name}: {wanted}; {remedy}")
    if isinstance(value, dict):
        check_plain(value, name)
    if isinstance(value, (list, tuple)):
        return list(value)
    return float(value) if fitting[0] is float else value


def whole(value: Any) -> Any:
    """A whole number, or a list of them, in any notation: 1e6 as 1000000."""
    if isinstance(value, list):
        return [whole(one) for one in value]
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= 2**53
    return int(value) if exact else value


def alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def fits(value: Any, hint: Any, limits: Mapping[str, Any]) -> bool:
    """Whether a value has the type, and its numbers are within limits; an integer is a float."""
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        (item,) = get_args(hint)
        kinds = alternatives(item)
        return isinstance(value, (list, tuple)) and all(
            any(fits(one, kind, limits) for kind in kinds) for one in value
        )
    if hint in (int, float):
        bounds = [(limit, limits[limit]) for limit in LIMITS if limit in limits]
        return (
            type(value) in (int, hint)
            and abs(value) < LARGEST
            and all(getattr(operator, limit)(value, bound) for limit, bound in bounds)
        )
    return isinstance(value, origin or hint)


def described(hint: Any, limits: Mapping[str, Any]) -> str:
    """A type and its limits as text."""
    choices: list[str] = []
    for candidate in alternatives(hint):
        origin = get_origin(candidate)
        choices += (
            get_args(candidate) if origin is Literal else [KINDS.get(candidate) or KINDS[origin]]
        )
    kind = " or ".join(choices) if len(choices) < 4 else "one of " + ", ".join(choices)
    given = [f"{sign} {limits[limit]}" for limit, sign in LIMITS.items() if limit in limits]
    return ", ".join([kind, *given])


def check_plain(values: dict[Any, Any], name: str) -> None:
    """Raises ConfigError where a key names no argument, or a value is none of YAML and JSON."""
    for inner, value in values.items():
        if not isinstance(inner, str) or not inner.isidentifier() or inner.startswith("_"):
            raise ConfigError(f"{name}.{show(inner)}: is not an argument's name; leave it out")
        if not plain(value):
            raise ConfigError(
                f"{name}.{inner}: must be of texts, finite numbers, true, false, null, lists and "
                f"groups, got {show(value)}; give such a value"
            )


def plain(value: Any) -> bool:
    """Whether a value can be written down as JSON, as checkpoints do."""
    if isinstance(value, dict):
        return all(map(plain, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(plain, value))
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int | None)


def unknown_key(name: str, known: list[str]) -> str:
    """One line that names the nearest valid key."""
    return f"{show(name, quote=False)}: is not a key; {nearest(name, known)}"


def nearest(name: str, known: list[str], otherwise: str = "--help lists the keys") -> str:
    """`did you mean ...?` with the nearest of the known names; `otherwise` if none is near."""
    name = name[:200].lower()
    group, dot, last = name.rpartition(".")
    meant = (last, *ELSEWHERE.get(last, ()))
    same = [one for one in known if one.rpartition(".")[-1].lower() in meant]  # in any group
    if same:
        close = difflib.get_close_matches(name, same, n=1, cutoff=0.0)
    else:  # within its own group by the last part, for the group's name would make all alike
        skip = len(group + dot) if any(one.startswith(group + dot) for one in known) else 0
        spelled = {
            f"{one[skip : len(one) - len(own)]}{word}".lower(): one
            for one in known
            if one.startswith(name[:skip])
            for own in [one.rpartition(".")[-1]]
            for word in (*(word for word in ELSEWHERE if own in ELSEWHERE[word]), own)
        }
        near = difflib.get_close_matches(name[skip:], spelled, n=1, cutoff=0.6)
        close = [spelled[one] for one in near]
    return f"did you mean {close[0]}?" if close else otherwise


def show(value: Any, quote: bool = True) -> str:
    """A value in at most 60 printable characters on one line."""
    text = repr(value) if quote else str(value)
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)  # as they are typed
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else text[:57] + "..."


def at_most(number: float) -> float:
    """The number rounded down to four digits, for a message that names the largest allowed."""
    return float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal(number))


def require_methods(key: str, made: type, base: type, names: Sequence[str]) -> None:
    """Raises ValueError if a class lacks methods that its base does not implement."""
    missing = [name for name in names if getattr(made, name, None) is getattr(base, name, None)]
    if missing:
        raise ValueError(
            f"{key}: {made.__name__} does not define {', '.join(missing)}; write it in "
            f"{made.__module__}, as {base.__module__} describes it"
        )
