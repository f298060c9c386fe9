"""The keys of a tool: KEY=VALUE on the command line, a dataclass with types and ranges in code."""

import json
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from common.errors import ConfigError
from configs.compose import TEXTS, parse
from configs.validate import LIMITS, Group, build, unknown_key

G = TypeVar("G", bound=Group)


def key(default: Any, doc: str = "", **more: Any) -> Any:
    """A field with its default, meaning and limits; `name` where its key is not its own name."""
    return field(default_factory=lambda: default, metadata={"doc": doc, **more})


@dataclass(frozen=True)
class Options(Group):
    """What every tool takes."""

    debug: bool = key(False, "show the traceback of an error")


def names(group: type[Group]) -> dict[str, str]:
    """{key: name of the field}."""
    return {one.metadata.get("name", one.name): one.name for one in fields(group)}


def plain(group: Group) -> dict[str, Any]:
    return {one.name: getattr(group, one.name) for one in fields(group)}


def read(group: type[G], arguments: list[str], *others: str) -> tuple[G, list[str]]:
    """The group, and the arguments that begin like one of `others`, as they are.

    Raises:
        ConfigError: an unknown key, or a value of a wrong type or out of range.
    """
    hints, known = get_type_hints(group), names(group)
    values, rest = plain(group()), []
    for argument in arguments:
        name, equals, text = argument.lstrip("+").partition("=")
        if equals and name in known:
            literal = hints[known[name]] is str and name not in TEXTS
            values[known[name]] = text if literal else parse(argument)[2]
        elif argument.lstrip("+").startswith(others):
            rest.append(argument)
        else:
            parse(argument)  # raises where it is no KEY=VALUE
            raise ConfigError(unknown_key(name, [*known, *others]))
    return build(group, values), rest


def described(group: type[Group], width: int) -> list[str]:
    """A line of help for each key: its default, meaning and limits."""
    lines, default = [], group()
    for one in fields(group):
        shown = json.dumps(getattr(default, one.name)).replace(" ", "").strip('"')
        limits = [
            f"{sign} {one.metadata[limit]:g}"
            for limit, (_, sign, _) in LIMITS.items()
            if limit in one.metadata
        ]
        about = one.metadata["doc"] + (f" ({', '.join(limits)})" if limits else "")
        lines.append(f"  {one.metadata.get('name', one.name) + '=' + shown:<{width}}  {about}")
    return lines
