"""Arguments that begin with a dash, and replacements for others of Hydra's."""

from collections.abc import Sequence

from common.errors import ConfigError

HELP = ("-h", "--help")
SWEEP = ("-m", "--multirun")
CFG = ("--cfg", "-c")
FLAGS = ["--help", "--cfg", "--config-dir", "--completion", "--multirun"]
INSTEAD = {  # what an argument of Hydra's begins with -> what to do here
    "--info": "give --cfg job for the configuration, --help KEY for a key",
    "--config-name": "choose settings by experiment=NAME or experiment=FILE.yaml",
    "-cn": "choose settings by experiment=NAME or experiment=FILE.yaml",
    "--package": "leave it out, --help KEY prints a single key",
    "-p": "leave it out, --help KEY prints a single key",
    "--resolve": "leave it out, what --cfg job prints is resolved",
    "--config-path": "add a folder by --config-dir DIR",
    "--shell-completion": 'type eval "$(python train.py --completion bash)"',
    "~tuned": "give tuned=null",
    "~": "give the key another value",
    "hydra.run.dir": "give run_dir=DIR",
    "hydra/sweeper": "give -m for all combinations, or search by tools/tune.py",
    "hydra/launcher": "leave it out, or add -m to train.py",
    "hydra": "of Hydra's keys, set hydra/launcher, hydra.launcher.*, hydra.sweep.dir, with -m",
}


def instead(argument: str) -> str | None:
    """The remedy for an argument of Hydra that is not supported."""
    return next((INSTEAD[begin] for begin in INSTEAD if argument.startswith(begin)), None)


def take(arguments: Sequence[str], *flags: str) -> tuple[str | None, list[str]]:
    """(The value of a flag, None without it; the other arguments), of FLAG VALUE or FLAG=VALUE.

    Raises ConfigError for a flag without a value, or one that is given twice.
    """
    words, rest, found = iter(arguments), list[str](), list[str]()
    for word in words:
        flag, equals, text = word.partition("=")
        if flag not in flags:
            rest.append(word)
            continue
        found.append(text if equals else next(words, ""))
        if not found[-1]:
            value = "job" if flag in CFG else "VALUE"
            raise ConfigError(f"{flag}: is without a value; give {flags[0]} {value}")
        if found[1:]:
            raise ConfigError(f"{flag}: is given twice; give it once")
    return (found[0] if found else None), rest
