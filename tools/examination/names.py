"""What an environment is called: the files of `configs/env/`."""

import itertools
import re
from typing import Any

from common.errors import ConfigError
from configs import files


def known(env_id: str, kwargs: dict[str, Any]) -> str | None:
    """What `env=NAME` calls an environment that has a file."""
    for name in files.options("env"):
        try:
            file = files.group("env", name)
        except ConfigError:
            continue  # half written, or somebody's attempt: whoever names it is told
        if (file.get("id"), file.get("kwargs") or {}) == (env_id, kwargs):
            return name
    return None


def group_name(env_id: str, kwargs: dict[str, Any]) -> str:
    """The same; where it has no file yet, a name that no other one has."""
    if name := known(env_id, kwargs):
        return name
    name = re.split("[:/]", env_id)[-1].lower().replace("-", "_")
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    taken = files.options("env")
    return next(one for one in names if one not in taken)


def tuned_for(name: str, agents: list[str]) -> list[str]:
    """Those of the agents that have settings of their own for the environment of this name."""
    folder = files.DIRECTORY / "tuned"
    return [agent for agent in agents if (folder / f"{name}-{agent}.yaml").exists()]
