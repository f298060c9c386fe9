"""Arguments that begin with a dash."""

from collections.abc import Sequence

from common.errors import ConfigError


def take(arguments: Sequence[str], *flags: str) -> tuple[str | None, list[str]]:
    """(The value of a flag, None without it; the other arguments), of FLAG VALUE or FLAG=VALUE."""
    words, rest, value = iter(arguments), [], None
    for word in words:
        flag, equals, text = word.partition("=")
        if flag in flags:
            value = text if equals else next(words, "")
        else:
            rest.append(word)
    return value, rest


def take_cfg(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """(Whether the configuration is only to be printed, the other arguments)."""
    value, rest = take(arguments, "--cfg", "-c")
    if value not in (None, "job"):
        why = f"{value} is not printed, Hydra's own configuration is not used"
        raise ConfigError(f"--cfg: {why}; give --cfg job")
    return value is not None, rest
