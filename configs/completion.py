"""The Tab key: `eval "$(python train.py --completion bash)"` completes groups, keys and values."""

import re
from typing import Any, Literal, get_args, get_origin

from common.errors import ConfigError
from configs.compose import USUAL
from configs.files import GROUPS, meant, options
from configs.flags import FLAGS
from configs.schema import EvaluateConfig, TrainConfig
from configs.sweep import LAUNCHERS
from configs.validate import alternatives, walk

SCRIPT = """_logpi() {{
  local line="${{COMP_LINE:0:$COMP_POINT}}" words IFS=$'\\n'
  local word="${{line##* }}"
  case "$line" in
{cases}
  *) return 0 ;;
  esac
  if [[ $word == *=* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word" | grep -v '=$'))
    [[ $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${{COMPREPLY[@]#"${{word%%=*}}="}}")
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$word" | grep '=$'))
  fi
  return 0
}}
complete -o nospace -o default -F _logpi python python3 torchrun"""
BEGIN = {"bash": "", "zsh": "autoload -U +X bashcompinit && bashcompinit\n"}


def script(shell: str) -> str:
    """A function of `shell` that completes the present files, keys and values.

    Pressing Tab starts no Python process. Raises ConfigError for a shell without one.
    """
    if shell not in BEGIN:
        raise ConfigError(f"--completion: {shell} has none; give --completion bash, or zsh")
    files = {  # whose names a shell reads as they are
        folder: [name for name in options(folder) if re.fullmatch(r"[\w.-]+", name)]
        for folder in GROUPS
    }
    agents = sorted(files["agent"], key=len, reverse=True)  # sac_discrete before sac
    patterns = {f"train.py*agent={agent}": meant("agent", agent) for agent in agents}
    patterns["train.py"] = USUAL["agent"]
    cases = [case("evaluate.py", EvaluateConfig, "", {"env": files["env"]})]
    files["hydra/launcher"] = LAUNCHERS
    cases += [case(one, TrainConfig, agent, files) for one, agent in patterns.items()]
    return BEGIN[shell] + SCRIPT.format(cases="\n".join(cases))


def case(pattern: str, group: Any, agent: str, files: dict[str, list[str]]) -> str:
    """KEY=, KEY=VALUE and flags of a command line that has the pattern in it."""
    known = files | {key: choices(hint) for key, hint, _ in walk(group, agent)}
    known.pop("agent.name", None)  # which the file has
    words = [f"{key}={value}" for key in known for value in ("", *known[key])]
    words += FLAGS if agent else FLAGS[:-1]  # evaluations are not swept
    return f"  *{pattern}*) words='{chr(10).join(words)}' ;;"


def choices(hint: Any) -> list[str]:
    """The values of a type that can be listed."""
    named = [get_args(one) for one in alternatives(hint) if get_origin(one) is Literal]
    others = {bool: ("true", "false"), type(None): ("null",)}
    return [*sum(named, ()), *sum((others.get(one, ()) for one in alternatives(hint)), ())]
