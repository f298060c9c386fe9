"""What can be given to `bench/bench.py`: every key, its default and its range; no torch."""

import json
from dataclasses import dataclass, fields

from bench.benchmark.comparisons import COMPARISONS, NAMES, ON_GPU
from common.errors import ConfigError
from configs.validate import Group, build, nearest, show, unknown_key
from tools.gallery.commandline import names, plain, value_of
from tools.gallery.settings import key

TEXTS = ("only", "out", "from")


@dataclass(frozen=True)
class Options(Group):
    """Keys of the command; `source` is given as `from`."""

    only: str = key("all", "comparisons, separated by commas; or all, but those on a GPU")
    blocks: int = key(7, "of each side of a comparison", ge=1, le=1000)
    seconds: float = key(3.0, "of a block, about", ge=0.01, le=600)
    seeds: int = key(5, "of each side of solve-cartpole and solve-pendulum", ge=1, le=1000)
    out: str = key("", "folder of the report; empty: runs/bench/<date-time>")
    write: bool = key(False, "write docs/performance.md, its blocks and its pictures, too")
    source: str = key("", "bench.json files, separated by commas, to report without measuring")
    debug: bool = key(False, "show the traceback of an error")

    @property
    def chosen(self) -> list[str]:
        """The names in `only`, in the order in which they are measured."""
        given = self.only.split(",")
        everything = self.only == "all"
        return [n for n in NAMES if (everything and n not in ON_GPU) or n in given]

    @property
    def sources(self) -> list[str]:
        return [path for path in self.source.split(",") if path]

    def check(self) -> None:
        for name in self.only.split(","):
            if name == "all" != self.only:
                raise ConfigError("only: all goes alone; leave it or the others out")
            if name not in ("all", *NAMES):
                raise ConfigError(
                    f"only: there is no {show(name)}; {nearest(name, ['all', *NAMES])}"
                )
        if self.source and self.only != "all":
            raise ConfigError("from: reports everything that was measured; leave only out")


def parse(arguments: list[str]) -> Options:
    """The options; raises ConfigError for an unknown key, or a value of a wrong type or range."""
    given = {}
    known = ["from" if name == "source" else name for name in names(Options)]
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{show(argument)}: is not KEY=VALUE; --help lists the keys")
        if name not in known:
            raise ConfigError(unknown_key(name, known))
        given["source" if name == "from" else name] = text if name in TEXTS else value_of(text)
    return build(Options, plain(Options()) | given)


def help_text() -> str:
    """All comparisons and keys."""
    lines = [
        "usage: python bench/bench.py [KEY=VALUE ...]\n",
        "  python bench/bench.py                         everything, most of an hour",
        "  python bench/bench.py only=sac256,startup     some of it",
        "  python bench/bench.py from=runs/bench/.../bench.json write=true",
        "      docs/performance.md from what was measured",
        "\ncomparisons:",
        *(f"  {name:<15} {comparison.title}" for name, comparison in COMPARISONS.items()),
        "  profile         where the time of a SAC step goes",
        "  rule            what compiling costs and saves, behind accelerate=auto and threads=auto",
        "  choices         what each choice of SAC costs an update, beside plain SAC",
        "  scaling         how cost grows with batch, width, action dimensions and environments",
        "\nkeys:",
    ]
    for declared in fields(Options):
        name = "from" if declared.name == "source" else declared.name
        default = json.dumps(getattr(Options(), declared.name)).strip('"')
        lines.append(f"  {f'{name}={default}':<15} {declared.metadata['doc']}")
    return "\n".join(lines)
