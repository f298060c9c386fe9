"""Plain data -> typed, frozen dataclasses, or one line that says what is wrong."""

import difflib
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from common.errors import ConfigError

ELSEWHERE = {  # what other libraries call a key -> the last part of its name here
    "learning_rate": ("lr",), "discount": ("gamma",), "n_envs": ("num_envs",),
    "n_epochs": ("epochs",), "total_timesteps": ("total_steps",), "net_arch": ("hidden",),
    "hidden_sizes": ("hidden",), "gradient_steps": ("updates_per_step",), "lam": ("gae_lambda",),
    "vf_coef": ("value_coef",), "entropy_coef": ("ent_coef", "alpha"), "ent_coef": ("alpha",),
    "clip_eps": ("clip_range",), "clip_epsilon": ("clip_range",), "clip_coef": ("clip_range",),
    "minibatch_size": ("batch_size",),
}  # fmt: skip
G = TypeVar("G", bound="Group")
Auto = Literal["auto"]


class OtherKeys(ConfigError):
    """A key is missing, or is not one: as in the configuration of another revision."""


def key(doc: str, **limits: float) -> Any:
    """A field with its meaning and its limits: ge/gt (from below), le/lt (from above).

    Of a newer key, `before` is the value of runs that were made before it was there.
    """
    return field(metadata={"doc": doc, **limits})


@dataclass(frozen=True)
class Group:
    """A group of keys; `check` holds what concerns several of them."""

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


def convert(value: Any, hint: Any, name: str, limits: typing.Mapping[str, Any]) -> Any:
    """`value` as the type `hint`, inside its limits; raises ConfigError."""
    for candidate in alternatives(hint):
        matched, result = match(value, candidate)
        if matched:
            for number in result if isinstance(result, list) else [result]:
                check_range(number, name, limits)
            if isinstance(result, dict):
                check_plain(result, name)
            return result
    raise ConfigError(f"{name}: must be {describe(hint)}, got {show(value)}; correct it")


def alternatives(hint: Any) -> list[Any]:
    union = isinstance(hint, types.UnionType) or get_origin(hint) is typing.Union
    return list(get_args(hint)) if union else [hint]


def match(value: Any, hint: Any) -> tuple[bool, Any]:
    """(whether value has the type, the value in that type)."""
    if hint is types.NoneType:
        return value is None, None
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint), value
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < 1e300, float(value) if number and abs(value) < 1e300 else 0
    if hint is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and abs(value) < 2**64, value
    if hint is dict or get_origin(hint) is dict:
        return isinstance(value, dict), value
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        fits = isinstance(value, (list, tuple)) and all(match(v, item)[0] for v in value)
        return fits, list(value) if fits else []
    return isinstance(value, hint), value


def check_range(value: Any, name: str, limits: typing.Mapping[str, Any]) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    tests: dict[str, tuple[str, Callable[[float], bool]]] = {
        "ge": ("at least", lambda bound: value >= bound),
        "gt": ("more than", lambda bound: value > bound),
        "le": ("at most", lambda bound: value <= bound),
        "lt": ("less than", lambda bound: value < bound),
    }
    for limit, (words, holds) in tests.items():
        if limit in limits and not holds(limits[limit]):
            raise ConfigError(
                f"{name}: must be {words} {limits[limit]:.15g}, got {show(value)}; correct it"
            )
    if not math.isfinite(value):
        raise ConfigError(f"{name}: must be finite, got {value}; correct it")


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
            raise ConfigError(f"{name}.{inner}: must be finite, got {show(values[inner])}; "
                              "correct it")  # fmt: skip


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
    said = []
    for candidate in alternatives(hint):
        if get_origin(candidate) is Literal:
            said += [str(choice) for choice in get_args(candidate)]
        elif get_origin(candidate) is list:
            said.append(f"a list of {get_args(candidate)[0].__name__}s".replace("ints", "integers"))
        else:
            said.append(words.get(get_origin(candidate) or candidate, str(candidate)))
    return " or ".join(said) if len(said) < 4 else "one of " + ", ".join(said)


def unknown_key(name: str, known: list[str]) -> str:
    """One line that names the nearest valid key."""
    return f"{show(name, quote=False)}: is not a key; {nearest(name, known)}"


def nearest(name: str, known: list[str], otherwise: str = "--help lists the keys") -> str:
    """A question that names the nearest of those known, or something else to say."""
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
    names = []
    for declared, hint in zip(fields(group), _hints(group), strict=True):
        if isinstance(hint, type) and issubclass(hint, Group):
            variants = group.VARIANTS.get(declared.name)
            inner = variants.get(variant or "", hint) if variants else hint
            names += key_names(inner, prefix=f"{prefix}{declared.name}.")
        else:
            names.append(f"{prefix}{declared.name}")
    return names


def _hints(group: type[Group]) -> list[Any]:
    hints = get_type_hints(group)
    return [hints[declared.name] for declared in fields(group)]
