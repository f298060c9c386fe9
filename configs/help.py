"""`--help` of the two doors, generated from the schema and the YAML files."""

import textwrap
from dataclasses import fields
from typing import Any, get_type_hints

from configs.agents import AGENT_GROUPS
from configs.compose import options
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import Group, describe

USAGE = {
    "train": """usage: python train.py [KEY=VALUE ...]

  python train.py                               A2C on CartPole-v1
  python train.py env=pendulum agent=sac        SAC on Pendulum-v1
  python train.py env.id=Acrobot-v1 agent=a2c   any Gymnasium id
  python train.py +experiment=textbook_a2c      a named experiment
  python train.py -m seed=range(5) agent=a2c,ppo   all combinations, one after another;
                                                hydra/launcher=joblib: on all cores
""",
    "evaluate": """usage: python evaluate.py run=RUN_DIR [KEY=VALUE ...]

  python evaluate.py run=runs/... episodes=100
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
    said: list[str] = []
    hints = get_type_hints(group)
    for declared in fields(group):
        hint: Any = hints[declared.name]
        name = f"{prefix}{declared.name}"
        if isinstance(hint, type) and issubclass(hint, Group):
            if declared.name not in group.VARIANTS:
                said += lines(hint, f"{name}.")
            continue
        limits = [
            f"{word} {declared.metadata[limit]:.15g}"
            for limit, word in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
            if limit in declared.metadata
        ]
        meaning = f"{declared.metadata['doc']} ({', '.join([describe(hint), *limits])})"
        indent = " " * 28
        wrapped = textwrap.wrap(meaning, 72)
        said.append(f"  {name:<25} {wrapped[0]}")
        said += [indent + line for line in wrapped[1:]]
    return said
