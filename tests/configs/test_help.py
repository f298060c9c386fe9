"""`--help` has the defaults of the pair that is chosen, `--cfg job` what is run and what set it."""

import dataclasses
import re
from typing import Any

import pytest
import yaml

from common.errors import ConfigError
from configs import help
from configs.agents import AGENT_GROUPS
from configs.compose import train_config
from configs.files import DIRECTORY, flat
from configs.schema import EvaluateConfig, TrainConfig
from configs.validate import key_names
from runtime.launch.door import enter
from runtime.launch.sweep import sweep

PAIR = ["env=pendulum", "agent=sac"]


def defaults(said: str) -> dict[str, str]:
    """{key: default} of a page of help; that of a tuned pair ends with a star."""
    rows = re.findall(r"^  ([a-z_.]+)=(\S+)( \*)? +\S", said, re.M)
    return {key: value + star for key, value, star in rows}


@pytest.mark.parametrize("agent", AGENT_GROUPS)
def test_help_has_every_key_of_the_agent_and_no_other_in_a_screen(agent: str) -> None:
    said = help.text("train", ["--help", f"agent={agent}", "env=lunar_lander_continuous"])
    assert [*defaults(said)] == [k for k in key_names(TrainConfig, agent) if k != "agent.name"]
    lines = said.splitlines()
    assert len(lines) < 80
    assert max(map(len, lines)) <= 100


def test_defaults_are_those_of_the_pair_and_marked_where_they_are_tuned() -> None:
    shown = defaults(help.text("train", ["--help", "seed=7", *PAIR]))
    tuned = yaml.safe_load((DIRECTORY / "tuned" / "pendulum-sac.yaml").read_text())
    assert {key for key in shown if shown[key].endswith(" *")} == {*dict(flat(tuned))}
    config = dict(flat(dataclasses.asdict(train_config(PAIR))))
    for key, value in shown.items():
        if value != "auto":
            assert yaml.safe_load(value.removesuffix(" *")) == config.get(key, {}), key
    general = defaults(help.text("train", ["--help", *PAIR, "tuned=null"]))
    assert (shown["agent.tau"], general["agent.tau"], general["seed"]) == ("0.01 *", "0.005", "0")


def test_help_of_evaluation_has_its_keys(capsys: Any) -> None:
    assert enter("evaluate", lambda config: 1, ["-h"]) == 0
    shown = defaults(capsys.readouterr().out)
    assert [*shown] == key_names(EvaluateConfig)
    assert shown["episodes"] == "100"
    assert enter("evaluate", lambda config: 1, ["--help", "episodes"]) == 0
    assert "an integer, >= 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [*PAIR, "--help", "agent.tau"],
            "default 0.005 here 0.01, by configs/tuned/pendulum-sac.yaml agents sac, sac_discrete "
            "page docs/agent_sac.md",
        ),
        (["help=agent.tau"], "> 0, <= 1 default 0.005 agents sac, sac_discrete page"),
        (
            [*PAIR, "-h", "agent.n_steps"],
            "default 16 here 16, by configs/tuned/pendulum-a2c.yaml agents a2c, ppo page",
        ),
        (
            ["-h", "total_steps"],
            "default 100000 here 500000, by configs/tuned/cartpole-a2c.yaml page docs/runs.md",
        ),
        (["-h", "env.wrappers"], "default [] page docs/environments.md, docs/configuration.md"),
        (["-h", "agent"], "agent=NAME a2c, ppo, sac, sac_discrete * is set by configs/tuned/cart"),
        (["-h", "agent"], "with env.id=CartPole-v1 agent=a2c: agent.policy=auto"),
        (["-h", "agent"], "agent.lr=0.0015 * learning rate"),
        ([*PAIR, "--help", "eval"], "eval.every=auto environment steps between evaluations"),
        (["--help", "--cfg", "job", "seed"], "seed meaning source of all randomness"),
    ],
)
def test_help_of_a_key_is_all_that_there_is_to_it(arguments: list[str], words: str) -> None:
    said = " ".join(help.text("train", arguments).split())
    assert words in said
    assert "usage" not in said


def test_help_of_what_is_no_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^agent.taus: is not a key; did you mean agent.tau\?$"):
        help.text("train", ["--help", "agent.taus"])


def test_cfg_prints_what_is_run_and_what_set_it(capsys: Any) -> None:
    arguments = [*PAIR, "agent.lr=0.1", "total_steps=1e4"]
    assert enter("train", lambda config: 1, ["--cfg", "job", *arguments]) == 0
    said = capsys.readouterr()
    assert yaml.safe_load(said.out) == dataclasses.asdict(train_config(arguments))
    tuned, given = said.out.splitlines()[:2]
    assert tuned.startswith("# configs/tuned/pendulum-sac.yaml: env.num_envs agent.hidden ")
    assert given == "# the command line: total_steps agent.lr"
    assert said.err == ""
    assert enter("train", lambda config: 1, ["-c", "hydra"]) == 2
    assert capsys.readouterr().err.endswith("; give --cfg job\n")
    assert enter("evaluate", lambda config: 1, ["--cfg=job", "run=x"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["run"] == "x"


def test_help_of_a_sweep_is_that_of_a_run(capsys: Any) -> None:
    """Of its first job."""
    several = ["-m", "seed=range(3,5)", "agent=ppo,a2c", "hydra/launcher=joblib"]
    assert sweep([*several, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown == f"# of the first job\n{help.text('train', ['seed=3', 'agent=ppo'])}\n"
    assert sweep([*several, "--cfg", "job"]) == 0
    config = train_config(["seed=3", "agent=ppo"])
    assert yaml.safe_load(capsys.readouterr().out) == dataclasses.asdict(config)
    assert sweep([*several, "--cfg", "all"]) == 2
