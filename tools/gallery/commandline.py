"""The command line of `tools/verify.py`: from KEY=VALUE to settings, and its help; no torch."""

import json
from dataclasses import fields
from typing import Any

from common.errors import ConfigError
from configs.validate import Group, build, nearest, show, unknown_key
from tools.gallery.settings import SECTIONS, Options


def names(group: type[Group]) -> list[str]:
    return [declared.name for declared in fields(group)]


def plain(group: Group) -> dict[str, Any]:
    return {name: getattr(group, name) for name in names(type(group))}


def parse(arguments: list[str]) -> tuple[Options, dict[str, Any]]:
    """(the command's own options, the settings of each chosen section).

    Raises:
        ConfigError: an unknown section or key, or a value of the wrong type or out of range.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{show(argument)}: is not KEY=VALUE; --help lists the keys")
        name = "env_id" if name == "env.id" else name
        texts = ("section", "out", "run", "checkpoint", "env_id")
        given[name] = text if name in texts else value_of(text)
    own = {name: given.pop(name) for name in names(Options) if name in given}
    options = build(Options, plain(Options()) | own)
    counts = options.false_alarms or options.audits
    if options.run and (given or options.section != "all" or counts):
        raise ConfigError("run: goes with seed, out, checkpoint and env.id alone; leave the other "
                          "keys out")  # fmt: skip
    if options.audits and (given or options.section != "all" or options.false_alarms):
        raise ConfigError("audits: goes alone; leave the other keys out")
    if options.section == "all":
        chosen, known = list(SECTIONS), ["samples"]
    elif options.section in SECTIONS:
        chosen, known = [options.section], names(SECTIONS[options.section])
    else:
        hint = nearest(options.section, ["all", *SECTIONS])
        raise ConfigError(f"section: there is no {show(options.section)}; {hint}")
    for name in given:
        if name not in known:
            having = [section for section, group in SECTIONS.items() if name in names(group)]
            if options.section == "all" and having:
                raise ConfigError(f"{name}: is a key of single sections; add section=NAME, one of "
                                  f"{', '.join(having)}")  # fmt: skip
            raise ConfigError(unknown_key(name, [*names(Options), *known]))
    return options, {
        section: build(SECTIONS[section], plain(SECTIONS[section]()) | {
            name: value for name, value in given.items() if name in names(SECTIONS[section])
        })
        for section in chosen
    }  # fmt: skip


def value_of(text: str) -> Any:
    """The value that a text stands for: JSON, a number, or the text itself."""
    for read in (json.loads, float):
        try:
            return read(text)
        except (ValueError, RecursionError):
            continue
    return text


def help_text() -> str:
    """All sections and keys with their defaults."""
    lines = [
        "usage: python tools/verify.py [KEY=VALUE ...]\n",
        "  python tools/verify.py                                     every section",
        "  python tools/verify.py section=tanh_normal mean=5 std=0.2  one, with other settings",
        "  python tools/verify.py run=runs/...                        a trained policy",
        "  python tools/verify.py false_alarms=1000                   its rate of false alarms",
        "  python tools/verify.py audits=64000                        that of audits in training\n",
        "exit code 0: everything holds; 1: something does not; 2: a key or value is wrong\n",
    ]
    groups: dict[str, type[Group]] = {"": Options, **SECTIONS}
    for section, group in groups.items():
        lines.append(f"section={section}: {group.__doc__}" if section else "keys:")
        for declared in fields(group):
            default = json.dumps(getattr(group(), declared.name)).replace(" ", "").strip('"')
            limits = [
                f"{word} {declared.metadata[limit]:g}"
                for limit, word in (("ge", ">="), ("gt", ">"), ("le", "<="))
                if limit in declared.metadata
            ]
            name = "env.id" if declared.name == "env_id" else declared.name
            shown = f"{name}={default}"
            meaning = declared.metadata["doc"] + (f" ({', '.join(limits)})" if limits else "")
            lines.append(f"  {shown:<44}  {meaning}")
    lines.append("without section=NAME, samples=N holds for all sections that draw")
    return "\n".join(lines)
