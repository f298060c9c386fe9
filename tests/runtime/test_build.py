"""From a configuration to parts."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from agents import make_agent
from common.errors import ConfigError
from configs.compose import train_config
from data import Spec
from runtime.build import example, make_parts
from runtime.session import unlearned

FLUSHES = """
import os, torch
from runtime.build import set_up_torch
for begin in (set_up_torch, torch.set_num_threads):
    if os.fork() == 0:  # threads take over what is set before they begin
        begin(2)
        small = torch.full((1_000_000,), 1e-39)
        assert torch.get_num_threads() == 2
        os._exit(bool((small * 1.0).view(torch.int32).any()))
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_all_threads_take_denormal_numbers_for_0():
    done = subprocess.run([sys.executable, "-c", FLUSHES], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["0", "1"], "")


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.95, True), (1.01, None)])
def test_a_target_entropy_near_log_k_is_warned_of_and_one_beyond_is_refused(share, warned, capsys):
    target = f"agent.target_entropy={share * math.log(2)}"
    small = ("agent.buffer_size=1000", "accelerate=none")
    config = train_config(["agent=sac_discrete", target, *small])
    if warned is None:
        with pytest.raises(ConfigError, match=r"agent\.target_entropy: 0\.700079 cannot be"):
            make_parts(config)
        return
    make_parts(config).close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == warned
    assert all(line.startswith("warning: agent.target_entropy: 0.658") for line in said)


@pytest.mark.parametrize(
    ("agent", "kind", "spec", "fitting"),
    [
        ("sac", "discrete", Spec(3, 2, discrete=True), ["a2c", "ppo", "sac_discrete"]),
        ("sac", "multi_discrete", Spec(3, 3, True, choices=(3, 2)), ["a2c", "ppo"]),
        ("sac_discrete", "continuous", Spec(3, 2, discrete=False), ["a2c", "ppo", "sac"]),
        ("sac_discrete", "multi_discrete", Spec(3, 3, True, choices=(3, 2)), ["a2c", "ppo"]),
    ],
)
def test_an_agent_that_does_not_fit_names_those_that_do(agent, kind, spec, fitting):
    settings = train_config([f"agent={agent}", "env.id=Any-v0"]).agent
    refused = f"^agent: {agent} does not support {kind} actions;"
    with pytest.raises(ValueError, match=refused) as told:
        make_agent(spec, settings, lambda name: torch.Generator(), 1)
    use = str(told.value).rpartition("; use ")[2]
    named = re.findall(r"(?:^| or )agent=(\w+)", use)
    assert use == " or ".join(f"agent={name}" for name in named)
    assert [name for name in named if name in ("a2c", "ppo", "sac", "sac_discrete")] == fitting
    for name in named:
        fits = train_config([f"agent={name}", "env.id=Any-v0", "agent.hidden=[8]"]).agent
        make_agent(spec, fits, lambda name: torch.Generator(), 1)


def test_an_agent_that_does_not_fit_an_environment_is_a_matter_of_configuration():
    with pytest.raises(ConfigError, match=r"^agent: sac does not support discrete actions"):
        make_parts(train_config(["agent=sac", "env=cartpole"]))


@pytest.mark.parametrize(
    ("arguments", "fewest"),
    [
        (["agent.n_steps=64"], 512),
        (["agent=sac", "env=pendulum", "agent.learning_starts=401"], 401),
        (
            [
                "agent=sac",
                "env=pendulum",
                "agent.learning_starts=400",
                "agent.updates_per_step=0.1",
            ],
            409,
        ),
    ],
)
def test_a_run_without_an_update_is_refused_with_the_fewest_steps(arguments, fewest):
    config = train_config([*arguments, "env.num_envs=8", "total_steps=400"])
    with pytest.raises(ConfigError) as caught:
        make_parts(config)
    said = "total_steps: 400 ends before the first update; raise it to"
    assert str(caught.value).startswith(f"{said} {fewest} or more, or lower agent.")


def test_what_cannot_be_trained_at_all_is_refused_first():
    config = train_config(["env=pendulum", "agent=sac_discrete", "total_steps=300"])
    with pytest.raises(ConfigError, match=r"^agent: sac_discrete does not support continuous"):
        make_parts(config)


def test_a_line_names_the_steps_that_fill_no_rollout():
    """At two ranks a rollout is twice as long; of few steps nothing is written."""
    given = ["agent=ppo", "env.num_envs=4", "agent.n_steps=64", "env.id=Any-v0"]
    for total, size, rest in (
        (1000, 1, 232),
        (1024, 1, 0),
        (1024 + 8, 1, 0),
        (1280, 2, 256),
        (255, 1, 0),
    ):
        line = unlearned(train_config([*given, f"total_steps={total}"]), size)
        assert bool(line) == (rest > 0)
        if rest:
            assert f"last {rest:,} steps" in line
            assert f"total_steps={total - rest + 256 * size} " in line


def test_a_single_advantage_is_not_normalised():
    alone = ["env=pendulum", "agent=a2c", "env.num_envs=1", "agent.n_steps=1"]
    with pytest.raises(ConfigError, match=r"^agent\.n_steps: 1 x env\.num_envs=1 is a single"):
        train_config([*alone, "agent.normalise_advantage=true"])
    train_config([*alone, "agent.normalise_advantage=false"])
    train_config([*alone, "agent.normalise_advantage=true", "agent.n_steps=2"])


def test_audits_of_ppo_are_counted_in_its_minibatches():
    """10,000 of them, 10 / 64 in each step, make 64,000 steps; a quarter of the run is 25,000."""
    config = train_config(["agent=ppo", "env.id=Any-v0", "agent.epochs=10", "total_steps=100000"])
    assert config.audit.every == 64_000


def test_minibatches_that_do_not_fit_into_a_rollout_are_refused_with_the_numbers():
    with pytest.raises(ConfigError) as caught:
        train_config(["agent=ppo", "env.num_envs=8", "agent.n_steps=32", "agent.batch_size=100"])
    assert str(caught.value) == (
        "agent.batch_size: 100 does not divide the rollout of agent.n_steps=32 x env.num_envs=8 = "
        "256 steps; use agent.n_steps=50"
    )
    with pytest.raises(ConfigError, match=r"^agent\.batch_size: a single advantage, normalised"):
        train_config(["agent=ppo", "agent.batch_size=1"])


@pytest.mark.parametrize(
    ("rollout", "batch_size", "advised"),
    [(7, 5, 10), (1, 2, 2), (7, 64, 64), (9, 5, 10)],
)
def test_a_size_that_is_advised_is_not_refused_in_turn(rollout, batch_size, advised):
    given = ["agent=ppo", "env.num_envs=1", f"agent.n_steps={rollout}"]
    given += [f"agent.batch_size={batch_size}"]
    with pytest.raises(ConfigError, match=rf"= {rollout} steps; use agent.n_steps={advised}$"):
        train_config(given)
    train_config([*given, f"agent.n_steps={advised}"])


@pytest.mark.parametrize("mode", ["none", "compile"])
def test_an_update_is_accelerated_where_it_is_asked_for(mode, monkeypatch):
    made = []
    monkeypatch.setattr("runtime.build.accelerate", lambda agent, *given: made.append(given))
    one = ["env=pendulum", "env.num_envs=1", "agent=sac"]
    config = train_config([*one, f"accelerate={mode}"])
    parts = make_parts(config)
    parts.close()
    assert [(how, len(batch.read().obs), len(obs)) for how, batch, obs in made] == (
        [] if mode == "none" else [("compile", config.agent.batch_size, 1)]
    )


def test_an_example_has_images_among_other_numbers_as_the_run_has_them():
    config = train_config(["env.id=tests.helpers:Picture-v0", "env.kwargs.discrete=true",
                           "env.kwargs.among=true", "agent=a2c", "agent.n_steps=5",
                           "accelerate=none", "total_steps=100", "eval.episodes=0"])  # fmt: skip
    parts = make_parts(config)
    made, envs = example(config, parts.agent, parts.buffer), parts.envs
    for rows in (made.obs, made.next_obs):
        assert (rows.dtype, rows.shape) == (torch.uint8, (5, *envs.obs.shape))
        numbers, images = np.split(envs.read(rows.numpy()), [2], -1)
        assert 0.5 < np.abs(numbers).max() < 10.0
        assert images.max() > 200
    assert made.action.shape == made.reward.shape == (5, envs.num_envs)
    parts.close()
