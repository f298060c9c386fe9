"""Plain data -> typed, frozen dataclasses, or one line with what is wrong."""

import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
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
LIMITS: dict[str, tuple[str, str, Callable[[float, float], bool]]] = {  # words, sign, test
    "ge": ("at least", ">=", operator.ge),
    "gt": ("more than", ">", operator.gt),
    "le": ("at most", "<=", operator.le),
    "lt": ("less than", "<", operator.lt),
}
LARGEST = {int: 2**64, float: 1e300}
G = TypeVar("G", bound="Group")
Auto = Literal["auto"]


class OtherKeys(ConfigError):
    """A key is missing, or is not one: as in the configuration of another revision."""


def key(doc: str, **limits: float) -> Any:
    """A field with its meaning and its LIMITS.

    `before` is the value of a newer key in runs that are older than it.
    """
    return field(metadata={"doc": doc, **limits})


@dataclass(frozen=True)
class Group:
    """A group of keys; `check` has the conditions on several of them."""

    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {}
    PREFIX: ClassVar[str] = ""

    def check(self) -> None:
        """Raises ConfigError where values do not fit together."""

    def require(self, holds: bool, name: str, why: str, remedy: str) -> None:
        """Raises ConfigError `<key>: <why>; <remedy>` unless `holds`."""
        if not holds:
            raise ConfigError(f"{self.PREFIX}{name}: {why}; {remedy}")


def build(group: type[G], data: Any, prefix: str = "", recorded: bool = False) -> G:
    """Makes `group` from nested dictionaries, `recorded` ones where they are those of a run.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, a value that is not finite or out of
            range; names the key in full, and the nearest valid one.
    """
    if not isinstance(data, dict):
        raise ConfigError(
            f"{prefix.rstrip('.')}: must be a group of keys, got {show(data)}; "
            f"set a single key, e.g. {prefix}{fields(group)[0].name}"
        )
    hints = get_type_hints(group)
    known = {f.name: f for f in fields(group)}
    for name in data:
        if name not in known:
            raise OtherKeys(unknown_key(f"{prefix}{name}", [f"{prefix}{k}" for k in known]))
    values = {}
    for name, declared in known.items():
        if name not in data and recorded and "before" in declared.metadata:
            values[name] = declared.metadata["before"]
            continue
        if name not in data:
            raise OtherKeys(f"{prefix}{name}: is missing; give it a value")
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, Group):
            variants = group.VARIANTS.get(name)
            if variants and isinstance(data[name], dict):
                chosen = data[name].get("name")
                if not isinstance(chosen, str) or chosen not in variants:
                    raise ConfigError(
                        f"{name}.name: {show(chosen)} is not one of "
                        f"{', '.join(variants)}; choose with {name}=NAME"
                    )
                hint = variants[chosen]
            values[name] = build(hint, data[name], f"{prefix}{name}.", recorded)
        else:
            values[name] = convert(data[name], hint, f"{prefix}{name}", declared.metadata)
    made = group(**values)
    object.__setattr__(made, "PREFIX", prefix)
    made.check()
    return made


def convert(value: Any, hint: Any, name: str, limits: Mapping[str, Any]) -> Any:
    """`value` as the type `hint`, inside its limits; raises ConfigError."""
    fitting = [candidate for candidate in alternatives(hint) if fits(value, candidate)]
    if not fitting:
        raise ConfigError(f"{name}: must be {describe(hint)}, got {show(value)}; correct it")
    if fitting[0] is float:
        value = float(value)
    if isinstance(value, dict):
        check_plain(value, name)
    if isinstance(value, (list, tuple)):
        value = list(value)
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            check_range(number, name, limits)
    return value


def alternatives(hint: Any) -> list[Any]:
    union = isinstance(hint, types.UnionType) or get_origin(hint) is typing.Union
    return list(get_args(hint)) if union else [hint]


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type, and is finite if it is a number; an integer is a float, too."""
    origin = get_origin(hint)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin is list:
        (item,) = get_args(hint)
        return isinstance(value, (list, tuple)) and all(fits(one, item) for one in value)
    if hint in (int, float):
        number = isinstance(value, int if hint is int else (int, float))
        return number and not isinstance(value, bool) and abs(value) < LARGEST[hint]
    return isinstance(value, origin or hint)


def check_range(number: float, name: str, limits: Mapping[str, Any]) -> None:
    """Raises ConfigError where a number is beyond a limit."""
    for limit, (words, _, holds) in LIMITS.items():
        if limit in limits and not holds(number, limits[limit]):
            raise ConfigError(
                f"{name}: must be {words} {limits[limit]:.15g}, got {show(number)}; correct it"
            )


def check_plain(values: dict[Any, Any], name: str) -> None:
    """Raises ConfigError where a key names no argument, or a number is not finite."""
    for inner in values:
        if not isinstance(inner, str) or not inner.isidentifier() or inner.startswith("_"):
            raise ConfigError(f"{name}.{show(inner)}: is not an argument's name; leave it out")
        if not plain(values[inner]):
            raise ConfigError(
                f"{name}.{inner}: must be of texts, numbers, true, false, null, "
                f"lists and groups, got {show(values[inner])}; correct it"
            )
        if not all(map(math.isfinite, numbers(values[inner]))):
            raise ConfigError(
                f"{name}.{inner}: must be finite, got {show(values[inner])}; correct it"
            )


def plain(value: Any) -> bool:
    """Whether a value can be written down as JSON, as checkpoints do."""
    if isinstance(value, dict):
        return all(map(plain, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(plain, value))
    return isinstance(value, str | int | float | None)


def numbers(value: Any) -> list[float]:
    """All numbers with a point in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, float) else []


def describe(hint: Any) -> str:
    """The type in a user's words."""
    words = {int: "an integer", float: "a finite number", str: "a text", bool: "true or false"}
    words |= {types.NoneType: "null", dict: "a group of keys"}
    choices: list[str] = []
    for candidate in alternatives(hint):
        if get_origin(candidate) is Literal:
            choices += map(str, get_args(candidate))
        elif get_origin(candidate) is list:
            items = get_args(candidate)[0].__name__ + "s"
            choices.append(f"a list of {'integers' if items == 'ints' else items}")
        else:
            choices.append(words.get(get_origin(candidate) or candidate, str(candidate)))
    return " or ".join(choices) if len(choices) < 4 else "one of " + ", ".join(choices)


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
        spelled = {one[skip:].lower(): one for one in known if one.startswith(name[:skip])}
        near = difflib.get_close_matches(name[skip:], spelled, n=1, cutoff=0.6)
        close = [spelled[one] for one in near]
    return f"did you mean {close[0]}?" if close else otherwise


def show(value: Any, quote: bool = True) -> str:
    """A value in at most 60 printable characters on one line."""
    text = repr(value) if quote else str(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else text[:57] + "..."


def key_names(group: type[Group], variant: str | None = None, prefix: str = "") -> list[str]:
    """All keys of a group in full, for one variant of its varying part."""
    names, hints = [], get_type_hints(group)
    for declared in fields(group):
        hint = hints[declared.name]
        if isinstance(hint, type) and issubclass(hint, Group):
            variants = group.VARIANTS.get(declared.name)
            inner = variants.get(variant or "", hint) if variants else hint
            names += key_names(inner, prefix=f"{prefix}{declared.name}.")
        else:
            names.append(f"{prefix}{declared.name}")
    return names
