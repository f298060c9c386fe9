"""Shared by the tools: keys with types and ranges, Markdown tables, folders and pictures."""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from common.errors import ConfigError
from configs.compose import TEXTS, parse
from configs.help import rows
from configs.validate import Group, build, nearest, show, unknown_key
from storage.rundir import make_by_time, make_new, write_bytes

G = TypeVar("G", bound=Group)


def key(default: Any, doc: str = "", **more: Any) -> Any:
    """A field with its default, meaning and limits; `name` if its key has another name."""
    return field(default_factory=lambda: default, metadata={"doc": doc, **more})


@dataclass(frozen=True)
class Keys(Group):
    """Keys of every tool."""

    debug: bool = key(False, "show the traceback of an error")

    def require_names(self, name: str, known: Sequence[str]) -> None:
        """Raises ConfigError unless a key is one of the known names, or several with commas."""
        for one in getattr(self, name).split(","):
            self.require(
                one in known,
                name,
                f"there is no {show(one)}",
                nearest(one, [*known], f"give one of {', '.join(known)}"),
            )


def names(group: type[Group]) -> dict[str, str]:
    """{key: name of the field}."""
    return {one.metadata.get("name", one.name): one.name for one in fields(group)}


def read_keys(group: type[G], arguments: list[str], *others: str) -> tuple[G, list[str]]:
    """(the group, the unchanged arguments that begin like one of `others`).

    Raises:
        ConfigError: an unknown key, or a value of a wrong type or out of range.
    """
    hints, known = get_type_hints(group), names(group)
    values, rest = asdict(group()), []
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
    """A line of help for each key: its default, meaning, type and range."""
    defaults, lines = asdict(group()), []
    for (name, own), (_, doc, kind) in zip(names(group).items(), rows(group, ""), strict=True):
        given = f"{name}={json.dumps(defaults[own])}".replace(" ", "").replace('"', "")
        lines.append(f"  {given:<{width}}  {doc} ({kind})")
    return lines


def table_row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(map(table_row, [head, ["---"] * len(head), *lines]))


def new_folder(out: str, default: str) -> Path:
    """For a report: `out`, with a suffix if it is in use, or one named by time in `default`."""
    path = Path(out)
    if out and path.is_dir() and not any(path.iterdir()):
        return path
    return make_new(path, "out") if out else make_by_time(Path(default))


def save(figure: Any, path: Path, **style: Any) -> None:
    """Writes a figure of matplotlib as PNG, whole or not at all; raises StorageFault."""
    content = io.BytesIO()
    figure.savefig(content, **style)
    write_bytes(path, content.getvalue())
