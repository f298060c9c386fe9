"""`--help` of train.py and evaluate.py, and docs/configuration.md, from schema and YAML files.

`python -m configs.help > docs/configuration.md`
"""

import json
import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from common.errors import ConfigError
from configs.agents import AGENT_GROUPS
from configs.compose import new_run, pair_keys, parse
from configs.files import DIRECTORY, GROUPS, flat, options, read_yaml
from configs.flags import CFG, HELP, take
from configs.resume import assignment
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import Group, described, key_names, unknown_key, walk

USAGE = {
    "train": """usage: python train.py [KEY=VALUE ...]

  python train.py                               A2C on CartPole-v1
  python train.py env=pendulum agent=sac        SAC on Pendulum-v1
  python train.py env.id=Acrobot-v1 agent=a2c   any Gymnasium id
  python train.py +experiment=textbook_a2c      a named experiment
  python train.py resume=RUN_DIR                continues a run that was stopped or killed
  python train.py -m "seed=range(5)" agent=a2c,ppo run_dir=runs/mine
                                                all combinations (docs/sweeps.md)
  python train.py --help agent.tau              one key in full; --help eval, a group
  python train.py --cfg job                     prints the configuration, and what sets each key
  eval "$(python train.py --completion bash)"   completes groups, keys and values by Tab (or zsh)
""",
    "evaluate": """usage: python evaluate.py run=RUN_DIR [KEY=VALUE ...]

  python evaluate.py run=runs/... episodes=100
  python evaluate.py run=runs/... video=true            films an episode, also in TensorBoard
  python evaluate.py run=runs/... render=human          shows episodes in a window
  python evaluate.py run=runs/... env.kwargs.g=5.0      in a changed environment
  python evaluate.py policy=policy.onnx env=pendulum    an exported file
  python evaluate.py run=RUN_DIR out=FOLDER             for a read-only run
  python evaluate.py --help max_length                  one key in full
""",
}
WIDTH = 100  # columns


def wanted(arguments: Sequence[str]) -> bool:
    """Whether help is what the arguments ask for."""
    return any(word in HELP or word.startswith("help=") for word in arguments)


def text(name: str, arguments: Sequence[str] = ()) -> str:
    """The help of `train` or `evaluate`: every key in a line, or in full those that are named.

    Defaults are those of the environment and agent that the arguments choose, the tuned pair
    included. Raises ConfigError for a name that is no key.
    """
    files, arguments = (*GROUPS, "env.id"), take(arguments, *CFG)[1]
    chosen = [word for word in arguments if word.lstrip("+").rpartition("=")[0] in files]
    named = [word for word in arguments if re.match("help=|[^-=][^=]*$", word)]
    if named:
        return "\n\n".join(about(name, word.removeprefix("help="), chosen) for word in named)
    groups = GROUPS[:3] if name == "train" else ()
    choices = [wrapped(f"{group}=NAME", ", ".join(options(group)), 18) for group in groups]
    heading, keys = listed(name, chosen)
    return "\n".join([USAGE[name], *choices, heading, *keys])


def listed(name: str, chosen: Sequence[str]) -> tuple[str, list[str]]:
    """What defaults are shown, and which of them are tuned; one line for each key."""
    if name == "evaluate":
        return "keys and defaults:", lines(EvaluateConfig, "", defaults("evaluate.yaml"))
    values, sources, agent = settings(chosen)
    tuned = pair_keys(sources)
    note = f"* is set by {sources['tuned']}; tuned=null leaves it out\n" if tuned else ""
    heading = f"\n{note}keys and defaults with env.id={values['env.id']} agent={agent}:"
    return heading, lines(TrainConfig, agent, values, tuned)


def settings(chosen: Sequence[str]) -> tuple[dict[str, Any], dict[str, str], str]:
    """(key -> default, key -> what sets it, the agent) with the groups that are chosen."""
    plain, sources = new_run([(key, value) for key, _, value in map(parse, chosen)], whole=False)
    values = {**dict(flat(plain)), "env.kwargs": plain["env"]["kwargs"]}
    return values, sources, plain["agent"]["name"]


def lines(
    group: type[Group], agent: str, values: dict[str, Any], tuned: Collection[str] = ()
) -> list[str]:
    """One line for each key: its default, and its meaning as far as there is room."""
    found = []
    for key, _, limits in walk(group, agent):
        if key != "agent.name":
            given = assignment(key, {key: {}, **values}) + " *" * (key in tuned)
            room = WIDTH - 3 - max(33, len(given))
            doc = textwrap.shorten(limits["doc"], room, placeholder=" ...")
            found.append(f"  {given:<33} {doc}")
    return found


def about(name: str, key: str, chosen: Sequence[str]) -> str:
    """A key in full: meaning, values, default, what it is with the chosen groups, page."""
    if listed := inside(name, key, chosen):
        return "\n".join(listed).lstrip("\n")
    group = TrainConfig if name == "train" else EvaluateConfig
    every = {one: row for agent in AGENT_GROUPS for one, *row in walk(group, agent)}
    if key not in every:
        raise ConfigError(unknown_key(key, [*every]))
    hint, limits = every[key]
    found = {"meaning": limits["doc"], "values": described(hint, limits)}
    if name == "evaluate":
        found["default"] = value_of(key, defaults("evaluate.yaml"))
    else:
        having = [agent for agent in AGENT_GROUPS if key in key_names(TrainConfig, agent)]
        values, sources, agent = settings(chosen)
        if agent not in having:  # nor is it for the agent of an experiment
            others = [word for word in chosen if not word.lstrip("+").startswith("experiment=")]
            values, sources, agent = settings([*others, f"agent={having[0]}"])
        found["default"] = value_of(key, general(agent))
        here = value_of(key, values)
        if key in sources or here != found["default"]:
            found["here"] = here + (f", by {sources[key]}" if key in sources else "")
        if key.startswith("agent."):
            found |= {"agents": ", ".join(having), "page": f"docs/agent_{agent}.md"}
    page = "environments" if key.startswith("env.") else "runs"
    found["page"] = f"{found.get('page', f'docs/{page}.md')}, docs/configuration.md"
    return "\n".join([key, *(wrapped(f"  {what}", of, 11) for what, of in found.items())])


def inside(name: str, key: str, chosen: Sequence[str]) -> list[str]:
    """Of a group its files and its keys, each in a line; empty for a single key."""
    heading, every = listed(name, chosen)
    keys = [line for line in every if line.startswith(f"  {key}.")]
    if name == "evaluate":
        return keys
    files = [wrapped(f"{key}=NAME", ", ".join(options(key)), 11)] if key in GROUPS else []
    return [*files, *([heading, *keys] if keys else [])]


def value_of(key: str, values: dict[str, Any]) -> str:
    """A value as on the command line."""
    return assignment(key, {key: {}, **values}).partition("=")[2]


def general(agent: str) -> dict[str, Any]:
    """key -> default, without a tuned pair."""
    run = defaults("train.yaml") | defaults("env/custom.yaml", "env.")
    return run | defaults(f"agent/{agent}.yaml", "agent.")


def wrapped(name: str, text: str, column: int) -> str:
    """A name, and a text from this column on."""
    indent = "\n" + " " * column
    return f"{name:<{column - 1}} " + indent.join(textwrap.wrap(text, WIDTH - column))


def rows(group: type[Group], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, meaning, type and range) of every key but those of a group that varies."""
    for name, hint, limits in walk(group):
        if name.partition(".")[0] not in group.VARIANTS:
            yield f"{prefix}{name}", limits["doc"], described(hint, limits)


def markdown() -> str:
    """docs/configuration.md: every key with its meaning, its range and its default."""
    parts = [
        "# Configuration\n",
        "Generated by `python -m configs.help > docs/configuration.md`; a test compares it with "
        "the schema.\nDefaults are those without a tuned pair (`configs/tuned/`). `auto` is "
        "resolved before the run\nbegins; its value is recorded in the run's `config.yaml`. "
        "What can be typed beside KEY=VALUE is in [hydra.md](hydra.md).",
    ]
    parts += table("`train.py`", TrainConfig, "", general("a2c"))
    for agent, group in AGENT_GROUPS.items():
        parts += table(
            f"`agent={agent}`", group, "agent.", defaults(f"agent/{agent}.yaml", "agent.")
        )
    parts += table("`evaluate.py`", EvaluateConfig, "", defaults("evaluate.yaml"))
    return "\n".join(parts)


def table(title: str, group: type[Group], prefix: str, given: dict[str, Any]) -> list[str]:
    """The section of a group, with the defaults that are given."""
    lines = [f"\n## {title}\n", "| key | default | meaning | values |", "|---|---|---|---|"]
    for name, doc, kind in rows(group, prefix):
        if name != "agent.name":
            shown = json.dumps(given[name]).strip('"') if name in given else ""
            lines.append(f"| `{name}` | {shown} | {doc} | {kind} |")
    return lines


def defaults(file: str, prefix: str = "") -> dict[str, Any]:
    """key -> value of a YAML file of this folder."""
    return dict(flat(read_yaml(DIRECTORY / file), prefix))


if __name__ == "__main__":
    print(markdown())
