"""`init=RUN_DIR`: what a new run takes over from another, and what it refuses."""

import json
import shutil
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train
from common.errors import ConfigError
from configs.compose import train_config
from policies import POLICIES
from runtime.build import make_parts
from runtime.initial import begin_from, require_same_network
from runtime.launch.door import enter
from runtime.saver import Saver
from runtime.session import announce
from storage import checkpoint

SMALL = ["agent.hidden=[8]", "threads=1", "accelerate=none", "eval.episodes=0"]
ONE = ["env=pendulum", "env.num_envs=1"]
SAC = [*ONE, "agent=sac", *SMALL, "agent.batch_size=8", "agent.learning_starts=20"]
MADE = [*SAC, "agent.normalise_obs=true", "total_steps=24", "checkpoint.every=24"]
A2C = ["env=cartpole", "agent=a2c", *SMALL, "env.num_envs=2", "agent.n_steps=4", "total_steps=16"]
DISCRETE = [
    "env=cartpole",
    "agent=sac_discrete",
    *SMALL,
    "agent.activation=tanh",
    "agent.normalise_obs=true",
]
run = partial(enter, "train", train.run)


def saved(path: Path, arguments: list[str]) -> Path:
    """A run with fresh weights and some statistics, saved at step 60."""
    config = train_config(arguments)
    parts = make_parts(config)
    parts.agent.learn_statistics(torch.randn(9, parts.agent.spec.obs_dim))
    path.mkdir()
    saver = Saver(path, config, parts, time.perf_counter())
    announce(saver)
    saver.save(60, None, None)
    parts.close()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {"sac": saved(folder / "sac", MADE), "a2c": saved(folder / "a2c", A2C)}


def modules(path: Path, step: int) -> Any:
    return checkpoint.load(path / "checkpoints" / f"step-{step:012d}")["agent"]["modules"]


def differing(one: Any, other: Any) -> list[str]:
    """The modules of `one` that are not the same in `other`."""
    return [
        name
        for name, weights in one.items()
        if not all(torch.equal(weights[key], other[name][key]) for key in weights)
    ]


def test_a_new_run_begins_with_the_weights_of_another_and_then_does_without_it(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With another seed, other settings, and another world of the same spaces."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(made["sac"], old)
    others = ["seed=1", "agent.lr=1e-4", "env.kwargs.g=5.0", f"init={old}", f"run_dir={new}"]
    assert run([*MADE, *others]) == 0
    out = capsys.readouterr().out
    assert f"temperature of {old}, sac on Pendulum-v1 at step 60; anew: optimiser, buf" in out
    found = modules(old, 60)
    assert len(found) == 5
    assert differing(found, modules(new, 0)) == []
    assert {"actor", "critic"} <= {*differing(found, modules(new, 24))}
    assert json.loads((new / "init.json").read_text())["checkpoint_step"] == 60
    shutil.rmtree(old)
    assert run([f"resume={new}", "total_steps=30"]) == 0
    assert json.loads((new / "result.json").read_text())["exact"] is False
    assert modules(new, 30)["normalizer"]["seen_count"] == 9 + 30


def begun(made: Path, *arguments: str) -> tuple[Any, Any]:
    """(what was taken and what is new, the modules of the agent that has begun so)."""
    config = train_config([*arguments, f"init={made}"])
    parts = make_parts(config)
    taken = begin_from(config, parts)
    parts.close()
    return (taken["taken"], taken["anew"]), parts.agent.state_dict()["modules"]


def test_what_a_new_run_has_for_itself_stays_its_own(made: dict[str, Path]) -> None:
    """A temperature that is given, and the critics of another kind; an average begins at once."""
    more = ["agent.alpha=0.3", "agent.actor_tau=0.01", "seed=1"]
    taken, own = begun(made["sac"], *MADE, *more)
    found = modules(made["sac"], 60)
    everything = ["normalizer", "actor", "critic", "critic_target", "actor_average"]
    always = ["optimiser", "buffer", "random numbers"]
    assert taken == (everything, ["temperature", *always])
    assert own["temperature"]["log_alpha"].exp().item() == pytest.approx(0.3)
    assert differing({"actor": own["actor_average"]}, found) == []
    taken, own = begun(made["a2c"], *DISCRETE)
    new = ["critic", "critic_target", "temperature", *always]
    assert taken == (["normalizer", "actor"], new)
    assert differing({"actor": own["actor"]}, modules(made["a2c"], 60)) == []
    taken, _ = begun(made["sac"], *MADE, "agent.reward_scale=2")
    assert taken == (["normalizer", "actor"], new)


KEYS = (
    *("policy", "hidden", "activation", "normalise_obs", "unit_obs", "bounded_mean", "log_std"),
    *("log_std_min", "log_std_max", "log_std_bound", "shared_torso", "bounded_value", "critics"),
    *("normalise_critic", "atoms"),
)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_the_network_is_compared(key: str) -> None:
    """Those too whose weights have the same shapes."""
    names = ("gaussian", "full_gaussian" if key == "policy" else "gaussian")
    made: list[Any] = [
        SimpleNamespace(
            policy_class=POLICIES[name],
            fitting=lambda kind: ["gaussian", "full_gaussian"],
            spec=SimpleNamespace(kind="continuous"),
            settings=SimpleNamespace(**{key: value}),
        )
        for name, value in zip(names, ("one", "other"), strict=True)
    ]
    with pytest.raises(ConfigError, match=rf"another network, agent\.{key}="):
        require_same_network(Path("run"), *made)


def test_sums_of_rewards_begin_with_the_new_run(tmp_path: Path) -> None:
    """The unit is taken over, what an unfinished episode has paid is not."""
    scaled = [*MADE, "agent.reward_scale=auto", f"run_dir={tmp_path / 'run'}"]
    assert run(scaled) == 0
    _, own = begun(tmp_path / "run", *scaled[:-1])
    found = modules(tmp_path / "run", 24)
    assert own["returns"]["unit"] == found["returns"]["unit"] != 1.0
    assert bool((found["returns"]["running"] != 0.0).all())
    assert not bool(own["returns"]["running"].any())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["agent.hidden=[9]"], "another network, agent.hidden=[8]; give these keys, too"),
        (["agent.activation=relu"], "another network, agent.activation=tanh; give"),
        (["agent.normalise_obs=false"], "another network, agent.normalise_obs=true; give"),
        (["agent.policy=tanh_full_gaussian"], "another network, agent.policy=tanh_gaussian; "),
        (["agent.critics=3"], "another network, agent.critics=2; give"),
        (["env=mountain_car_continuous"], "its observation space is"),
        (["init_checkpoint=step-000000000001"], "init_checkpoint: step-000000000001 is not in"),
        (["init=nowhere"], "init: nowhere is not a run directory"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    arguments: list[str],
    words: str,
    made: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*MADE, f"init={made['sac']}", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
