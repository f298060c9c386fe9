"""What `auto` stands for, on both sides of every bound of its rules."""

import os
from typing import Any

import pytest

from configs import automatic
from configs.compose import train_config

A2C, PPO, SAC = (["env.id=Another-v0", f"agent={name}"] for name in ("a2c", "ppo", "sac"))


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets how many cores this process may use."""

    def there(count: int) -> None:
        affinity: Any = lambda _: set(range(count))  # noqa: E731
        monkeypatch.setattr(os, "sched_getaffinity", affinity, raising=False)

    there(3)
    return there


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        ([*SAC, "agent.hidden=[124]"], 1),  # 256 x 124^2 < 4,000,000
        ([*SAC, "agent.hidden=[125]"], 3),
        ([*SAC, "agent.hidden=[125,8]"], 3),
        ([*SAC, "agent.hidden=[8,125]"], 3),
        ([*SAC, "agent.hidden=[125]", "agent.batch_size=255"], 1),
        ([*A2C, "agent.hidden=[124]", "agent.n_steps=1000"], 1),  # whatever its rollout
        ([*A2C, "agent.hidden=[125]", "agent.n_steps=2"], 3),
        ([*PPO, "agent.hidden=[250]"], 3),  # 64 x 250^2
        ([*PPO, "agent.hidden=[249]"], 1),
        ([*PPO, "agent.hidden=[250]", "threads=1"], 1),
        ([*PPO, "agent.hidden=[8]", "threads=7"], 7),
    ],
)
def test_threads_are_several_from_four_million_on(
    arguments: list[str], threads: int, cores: Any
) -> None:
    assert train_config(arguments).threads == threads


@pytest.mark.parametrize(
    ("there", "processes", "threads"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 4), (5, 1, 4), (64, 1, 4), (4, 2, 2), (4, 3, 1), (2, 4, 1)],
)
def test_threads_are_cores_up_to_four_of_which_each_process_has_its_part(
    there: int, processes: int, threads: int, cores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(there)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert train_config(SAC).threads == threads


@pytest.mark.parametrize(
    ("total", "log", "tenth"),
    [(1, 50, 1), (9, 50, 1), (10, 50, 1), (29, 50, 2), (5099, 50, 509), (5100, 51, 510)],
)
def test_intervals_are_shares_of_the_run(total: int, log: int, tenth: int) -> None:
    config = train_config([*A2C, f"total_steps={total}"])
    assert config.log.every == log
    assert (config.eval.every, config.checkpoint.every) == (tenth, tenth)


@pytest.mark.parametrize("key", ["log", "eval", "checkpoint", "audit"])
def test_an_interval_that_is_given_stays_and_the_others_do_not_follow(key: str) -> None:
    free = train_config(A2C)
    given = train_config([*A2C, f"{key}.every=7"])
    for name in ("log", "eval", "checkpoint", "audit"):
        expected = 7 if name == key else getattr(free, name).every
        assert getattr(given, name).every == expected


@pytest.mark.parametrize(
    ("arguments", "every"),
    [
        ([*PPO, "total_steps=100"], 64_000),  # 10 passes over minibatches of 64
        ([*PPO, "total_steps=100", "agent.epochs=5"], 128_000),
        ([*PPO, "total_steps=100", "agent.batch_size=128"], 128_000),
        ([*PPO, "total_steps=300000"], 75_000),
        ([*A2C, "total_steps=100", "agent.n_steps=4", "env.num_envs=2"], 80_000),
        ([*SAC, "total_steps=100", "agent.updates_per_step=0.5"], 20_000),
        ([*SAC, "total_steps=100001"], 25_000),
    ],
)
def test_audits_are_ten_thousand_updates_apart(arguments: list[str], every: int) -> None:
    assert train_config(arguments).audit.every == every


@pytest.mark.parametrize(
    ("arguments", "copies"),
    [(A2C, 8), (PPO, 8), (SAC, 1), (["env.id=Another-v0", "agent=sac_discrete"], 1)],
)
def test_agents_that_learn_from_rollouts_have_eight_copies(
    arguments: list[str], copies: int
) -> None:
    assert train_config(arguments).env.num_envs == copies
    assert train_config([*arguments, "env.num_envs=16"]).env.num_envs == 16


@pytest.mark.parametrize(
    ("arguments", "vectorization"),
    [
        (["env=cartpole"], "native"),
        (["env.id=CartPole-v1"], "native"),
        (["env.id=CartPole-v0"], "sync"),
        (["env=cartpole", "env.kwargs.x=1"], "sync"),
        (["env=cartpole", "env.vectorization=async"], "async"),
        (["env=pendulum", "agent=sac"], "native"),
        (["env=acrobot"], "sync"),
    ],
)
def test_what_has_a_native_form_is_stepped_by_it(arguments: list[str], vectorization: str) -> None:
    assert train_config(arguments).env.vectorization == vectorization


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (SAC, 20_000 + 999),  # steps, of which the first 1,000 make one update
        ([*SAC, "agent.learning_starts=1"], 20_000),
        ([*SAC, "agent.updates_per_step=2"], 10_000 + 999),
        ([*SAC, "agent.policy_delay=2"], 40_000 + 999),
        ([*A2C, "agent.n_steps=4", "env.num_envs=2"], 20_000 * 8),
        ([*PPO, "agent.n_steps=8", "agent.batch_size=32", "agent.epochs=5"], 2_000 * 64),
    ],
)
def test_updates_are_compiled_from_twenty_thousand_on(
    arguments: list[str], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    monkeypatch.setattr(automatic, "torch_version", lambda: (2, 13))

    def accelerate(total: int) -> str:
        return train_config([*arguments, f"total_steps={total}"]).accelerate

    assert (accelerate(first - 1), accelerate(first)) == ("none", "compile")
    monkeypatch.setattr(automatic, "torch_version", lambda: (2, 12))
    assert accelerate(first) == "none"
    monkeypatch.setattr(automatic, "torch_version", lambda: (3, 0))
    assert accelerate(first) == "compile"
    monkeypatch.setattr(automatic, "compiler", lambda: None)
    assert accelerate(first) == "none"


@pytest.mark.parametrize(("steps", "updates"), [(10, "1 update, "), (20, "2 updates, ")])
def test_the_number_of_updates_is_given_as_the_reason(steps: int, updates: str) -> None:
    config = train_config([*A2C, "agent.n_steps=5", "env.num_envs=2", f"total_steps={steps}"])
    assert automatic.acceleration(config)[1].startswith(updates)


def test_a_gpu_has_graphs_from_the_first_update_on_and_several_processes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert train_config([*SAC, "device=cuda:1", "total_steps=10"]).accelerate == "cudagraph"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert train_config([*SAC, "device=cuda"]).accelerate == "none"
    assert train_config([*SAC, "total_steps=1000000"]).accelerate == "none"
