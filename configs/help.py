"""`--help` of the two doors, and docs/configuration.md, from the schema and the YAML files.

`python -m configs.help > docs/configuration.md`
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from configs.agents import AGENT_GROUPS
from configs.files import DIRECTORY, flat, options, read_yaml
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import Group, described, walk

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
    if name == "evaluate":
        return "\n".join([USAGE[name], "keys:", *lines(EvaluateConfig)])
    groups = ("env", "agent", "experiment")
    named = [wrapped(f"{group}=NAME", ", ".join(options(group)), 18) for group in groups]
    parts = [USAGE[name], *named, "\nkeys:", *lines(TrainConfig)]
    for agent, group in AGENT_GROUPS.items():
        parts += [f"\nkeys of agent={agent}:", *lines(group, "agent.")]
    return "\n".join(parts)


def lines(group: type[Group], prefix: str = "") -> list[str]:
    """One paragraph per key: its name, meaning, type and range."""
    return [wrapped(f"  {name}", f"{doc} ({kind})", 28) for name, doc, kind in rows(group, prefix)]


def wrapped(name: str, text: str, column: int) -> str:
    """A name, and a text from this column on."""
    indent = "\n" + " " * column
    return f"{name:<{column - 1}} " + indent.join(textwrap.wrap(text, 72))


def rows(group: type[Group], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, meaning, type and range) of every key but those of a group that varies."""
    for name, hint, limits in walk(group):
        if name.partition(".")[0] not in group.VARIANTS:
            yield f"{prefix}{name}", limits["doc"], described(hint, limits)


def markdown() -> str:
    """docs/configuration.md: every key with its meaning, its range and its default."""
    parts = [
        "# Configuration\n",
        "Made by `python -m configs.help > docs/configuration.md`; a test holds it against the "
        "schema.\nDefaults are those without a tuned pair (`configs/tuned/`); `auto` is resolved "
        "before the run\nbegins, and what it became stands in the run's `config.yaml`.",
    ]
    general = defaults("train.yaml") | defaults("env/custom.yaml", "env.")
    parts += table("`train.py`", TrainConfig, "", general)
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
