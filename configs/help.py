"""`--help` of the two doors, and docs/configuration.md, from the schema and the YAML files.

`python -m configs.help > docs/configuration.md`
"""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

from configs.agents import AGENT_GROUPS
from configs.files import DIRECTORY, flat, options, read_yaml
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import LIMITS, Group, describe

USAGE = {
    "train": """usage: python train.py [KEY=VALUE ...]

  python train.py                               A2C on CartPole-v1
  python train.py env=pendulum agent=sac        SAC on Pendulum-v1
  python train.py env.id=Acrobot-v1 agent=a2c   any Gymnasium id
  python train.py +experiment=textbook_a2c      a named experiment
  python train.py resume=RUN_DIR                goes on with a run that was stopped or killed
  python train.py -m "seed=range(5)" agent=a2c,ppo run_dir=runs/mine
                                                all combinations, one after another, in
                                                runs/mine/0 and so on, and a table; with
                                                hydra/launcher=joblib threads=1 on all cores, with
                                                hydra/launcher=submitit_slurm on a cluster
  torchrun --standalone --nproc-per-node=2 train.py env=pendulum agent=ppo
                                                two processes, or machines, learn together
""",
    "evaluate": """usage: python evaluate.py run=RUN_DIR [KEY=VALUE ...]

  python evaluate.py run=runs/... episodes=100
  python evaluate.py run=runs/... video=true            films an episode, into TensorBoard too
  python evaluate.py run=runs/... render=human          plays in a window
  python evaluate.py policy=policy.onnx env=pendulum    an exported file
  python evaluate.py run=RUN_DIR out=FOLDER             a run that is not to be written
""",
}


def text(name: str) -> str:
    """The help of `train` or `evaluate`."""
    parts = [USAGE[name]]
    if name == "train":
        for folder in ("env", "agent", "experiment"):
            names = textwrap.wrap(", ".join(options(folder)), 72)
            parts.append(f"{folder + '=NAME':<18}" + ("\n" + " " * 18).join(names))
        parts.append("\nkeys:")
        parts += lines(TrainConfig)
        for agent, group in AGENT_GROUPS.items():
            parts.append(f"\nkeys of agent={agent}:")
            parts += lines(group, "agent.")
    else:
        parts += ["keys:", *lines(EvaluateConfig)]
    return "\n".join(parts)


def lines(group: type[Group], prefix: str = "") -> list[str]:
    """One paragraph per key: its name, meaning, type and range."""
    found: list[str] = []
    for name, doc, kind in rows(group, prefix):
        indent = " " * 28
        wrapped = textwrap.wrap(f"{doc} ({kind})", 72)
        found.append(f"  {name:<25} {wrapped[0]}")
        found += [indent + line for line in wrapped[1:]]
    return found


def rows(group: type[Group], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, meaning, type and range) of every key."""
    hints = get_type_hints(group)
    for declared in fields(group):
        hint: Any = hints[declared.name]
        name = f"{prefix}{declared.name}"
        if isinstance(hint, type) and issubclass(hint, Group):
            if declared.name not in group.VARIANTS:
                yield from rows(hint, f"{name}.")
            continue
        limits = [
            f"{sign} {declared.metadata[limit]:{'d' if hint is int else '.15g'}}"
            for limit, (_, sign, _) in LIMITS.items()
            if limit in declared.metadata
        ]
        yield name, declared.metadata["doc"], ", ".join([describe(hint), *limits])


def markdown() -> str:
    """docs/configuration.md: every key with its meaning, its range and its default."""
    parts = [
        "# Configuration\n",
        "Made by `python -m configs.help > docs/configuration.md`; a test holds it against the "
        "schema.\nDefaults are those without a tuned pair (`configs/tuned/`); `auto` is resolved "
        "before the run\nbegins, and what it became stands in the run's `config.yaml`.\n",
        "## `train.py`\n",
        "`env.id=ID` alone begins from the general settings. Beside `env=NAME`, or an experiment "
        "that chooses\none, it takes the place of the id in that file: the file's other keys stay, "
        "the tuned pair of its name\ndoes not come. A file of your own in `configs/env/` need hold "
        "no more than its id and what differs from\n`configs/env/custom.yaml`.\n",
        "With `resume=auto`, where there is a run, the command is held against it. A key that is "
        "given, or set by\nthe experiment that is named, and differs is refused, and so are "
        "another environment and another\nagent; `auto` is what its rule makes of it in that run. "
        "What is "
        "left out is as the run was made with, and\none warning names what would be otherwise. "
        "(`accelerate=auto` never ends a run: it keeps what it has.)\n",
        table(TrainConfig, "", defaults("train.yaml") | defaults("env/custom.yaml", "env.")),
    ]
    for agent, group in AGENT_GROUPS.items():
        given = defaults(f"agent/{agent}.yaml", "agent.")
        parts += [f"\n## `agent={agent}`\n", table(group, "agent.", given)]
    parts += ["\n## `evaluate.py`\n", table(EvaluateConfig, "", defaults("evaluate.yaml"))]
    return "\n".join(parts)


def table(group: type[Group], prefix: str, given: dict[str, Any]) -> str:
    lines = ["| key | default | meaning | values |", "|---|---|---|---|"]
    for name, doc, kind in rows(group, prefix):
        if name == "agent.name":
            continue
        shown = json.dumps(given[name]).strip('"') if name in given else ""
        cells = [f"`{name}`", shown, doc, kind.replace("|", "or")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def defaults(file: str, prefix: str = "") -> dict[str, Any]:
    """key -> value of a YAML file of this folder."""
    return {f"{prefix}{key}": value for key, value in flat(read_yaml(DIRECTORY / file))}


if __name__ == "__main__":
    print(markdown())
