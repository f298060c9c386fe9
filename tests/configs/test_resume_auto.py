"""`resume=auto` and `resume=RUN`: what is given must be the run's, what is left out is kept."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from configs import automatic
from configs.compose import train_config
from configs.files import to_yaml
from configs.sweep import read_sweep

SAC = ["env=pendulum", "agent=sac", "total_steps=3000"]
A2C = ["env.id=Pendulum-v1", "agent=a2c", "total_steps=3000"]
CARTPOLE = ["env=cartpole", "agent=a2c", "total_steps=3000"]
PPO = ["env.id=Pendulum-v1", "agent=ppo", "total_steps=3000"]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """A function that leaves what a run of these arguments has when it was stopped."""

    def begin(*arguments: str) -> Path:
        path = tmp_path / "run"
        (path / "checkpoints" / "step-000000000000").mkdir(parents=True)
        (path / "config.yaml").write_text(to_yaml(train_config([*arguments, f"run_dir={path}"])))
        return path

    return begin


def again(path: Path, *arguments: str) -> Any:
    return train_config([*arguments, f"run_dir={path}", "resume=auto"])


def recorded(path: Path) -> Any:
    """The run as it was made, whatever `resume=` was given by."""
    return dataclasses.replace(train_config([f"resume={path}"]), resume="auto")


DIFFERENT = {  # name: (the settings of the run, what is given on top, the two values)
    "agent.alpha": (SAC, ["agent.alpha=0.2"], ["agent.alpha=auto"], "'auto'", "0.2"),
    "agent.target_entropy": (
        *(SAC, ["agent.target_entropy=-2"], ["agent.target_entropy=auto"], "'auto'", "-2.0"),
    ),
    "agent.policy": (A2C, ["agent.policy=full_gaussian"], ["agent.policy=auto"], "'auto'", "'full"),
    "env.num_envs": (A2C, ["env.num_envs=4"], ["env.num_envs=auto"], "'auto'", "4"),
    "env.vectorization": (
        *(CARTPOLE, ["env.vectorization=sync"], ["env.vectorization=auto"], "'auto'", "'sync'"),
    ),
    "audit.every": (A2C, ["audit.every=90"], ["audit.every=auto"], "'auto'", "90"),
    "seed": (A2C, ["seed=1"], ["seed=2"], "2", "1"),
    "agent.lr": (A2C, ["agent.lr=1"], ["agent.lr=0.001"], "0.001", "1.0"),
    "accelerate": (A2C, [], ["accelerate=compile"], "'compile'", "'none'"),
    "env.kwargs.g": (A2C, ["env.kwargs.g=9.8"], ["env.kwargs.g=auto"], "'auto'", "9.8"),
    "env.kwargs.h": (A2C, ["env.kwargs.g=9.8"], ["env.kwargs.h=1"], "1", "none"),
    "env.kwargs.n": (A2C, ["env.kwargs.g=9.8"], ["env.kwargs.n=null"], "null", "none"),
    "env.kwargs.a.b": (A2C, ["env.kwargs.a={b:1}"], ["env.kwargs.a={b:2}"], "2", "1"),
}

NEW = ("accelerate", "env.kwargs.h", "env.kwargs.n")  # which the run was not given


@pytest.mark.parametrize("key", DIFFERENT)
def test_a_key_that_is_given_and_differs_is_refused(key: str, made: Any) -> None:
    base, first, then, value, has = DIFFERENT[key]
    path = made(*base, *first)
    with pytest.raises(ConfigError) as auto:
        again(path, *base, *then)
    assert str(auto.value).startswith(f"{key}: {value} is not the run's value, {has}")
    with pytest.raises(ConfigError) as named:
        train_config([f"resume={path}", *then])
    assert str(named.value).startswith(f"{key}: {value} is not the run's value, {has}")


@pytest.mark.parametrize("key", [key for key in DIFFERENT if key not in NEW])
def test_a_key_that_is_left_out_is_kept_and_said_once(key: str, made: Any, capsys: Any) -> None:
    base, first, _, _, has = DIFFERENT[key]
    path = made(*base, *first)
    assert again(path, *base) == recorded(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: kept from the run: {key}={has.strip(chr(39))}")
    again(path, *base, *first)  # as it was made
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("base", "more"),
    [
        (SAC, ["agent.alpha=auto", "agent.target_entropy=auto", "agent.policy=auto"]),
        ([*SAC, "tuned=null"], ["env.num_envs=auto", "env.vectorization=auto", "accelerate=auto"]),
        (CARTPOLE, ["env.vectorization=auto", "audit.every=auto"]),
        (A2C, ["env.num_envs=8", "env.vectorization=native", "audit.every=auto"]),
        (A2C, ["threads=auto", "log.every=auto", "eval.every=auto", "checkpoint.every=auto"]),
        (["experiment=textbook_a2c"], []),
        (["env.id=CartPole-v1"], ["agent=a2c", "seed=0", "agent.hidden=[64,64]"]),
    ],
)
def test_what_auto_stands_for_may_be_given_in_either_way(
    base: list[str], more: list[str], made: Any, capsys: Any
) -> None:
    path = made(*base)
    assert again(path, *base, *more) == recorded(path)
    if not base[0].startswith("experiment"):
        assert train_config([f"resume={path}", *more]) == train_config([f"resume={path}"])
    assert capsys.readouterr().err == ""


def test_audits_of_a_longer_run_are_those_it_was_made_with(made: Any, capsys: Any) -> None:
    base = ["env.id=Another-v0", "agent=sac", "agent.updates_per_step=100"]
    path = made(*base, "total_steps=100000", "audit.every=auto")
    config = again(path, *base, "total_steps=200000", "audit.every=auto")
    assert (config.total_steps, config.audit.every) == (200_000, 25_000)
    assert "audit.every" not in capsys.readouterr().err


@pytest.mark.parametrize("key", ["log.every", "eval.every", "checkpoint.every", "threads"])
def test_a_free_key_is_resolved_anew_where_auto_is_given(key: str, made: Any, capsys: Any) -> None:
    path = made(*SAC, f"{key}=3")

    def found(config: Any) -> Any:
        group, _, name = key.rpartition(".")
        return getattr(getattr(config, group) if group else config, name)

    fresh = found(train_config(SAC))
    assert fresh != 3
    assert found(again(path, *SAC)) == 3
    assert capsys.readouterr().err == f"warning: kept from the run: {key}=3\n"
    assert found(again(path, *SAC, f"{key}=auto")) == fresh
    assert found(train_config([f"resume={path}", f"{key}=auto"])) == fresh
    assert capsys.readouterr().err == ""


def test_intervals_that_are_resolved_anew_are_those_of_the_longer_run(made: Any) -> None:
    path = made(*SAC)
    assert again(path, *SAC, "total_steps=90000").log.every == 50
    assert again(path, *SAC, "total_steps=90000", "log.every=auto").log.every == 900


@pytest.mark.parametrize(
    ("first", "then", "line"),
    [
        (
            SAC,
            SAC[:1],
            "agent: 'a2c' is not the run's value, 'sac'; give that, or begin",
        ),
        (SAC, [*SAC, "agent=a2c"], "agent: 'a2c' is not the run's value, 'sac'"),
        (SAC, SAC[1:], "env.id: 'CartPole-v1' is not the run's value, 'Pend"),
        (SAC, ["env=acrobot", *SAC[1:]], "env.id: 'Acrobot-v1' is not the run's value"),
        (CARTPOLE, ["experiment=textbook_a2c"], r"\S+: \S.* is not the run's value"),
        (
            ["experiment=textbook_a2c", "agent.lr=0.5"],
            ["experiment=textbook_a2c"],
            "agent.lr: 0.01 is not the run's value, 0.5; give that, or begin",
        ),
    ],
)
def test_another_environment_agent_or_experiment_is_refused(
    first: list[str], then: list[str], line: str, made: Any
) -> None:
    path = made(*first)
    with pytest.raises(ConfigError, match=f"^{line}"):
        again(path, *then)


def test_the_remedies_of_another_agent_and_environment_go_on(made: Any, capsys: Any) -> None:
    path = made(*SAC)
    config = again(path, "agent=sac", "env.id=Pendulum-v1")  # without the tuned pair
    assert config == recorded(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "total_steps=3000" in line
    assert "agent.hidden=[64,64]" in line


def test_a_run_that_was_made_longer_is_not_cut_and_says_so(made: Any, capsys: Any) -> None:
    path = made(*A2C)
    (path / "config.yaml").write_text(
        (path / "config.yaml").read_text().replace("total_steps: 3000", "total_steps: 5000")
    )
    assert again(path, *A2C).total_steps == 5000
    assert capsys.readouterr().err == ("warning: kept from the run: total_steps=5000\n")


def test_the_first_command_goes_on_with_a_run_that_was_made_longer(made: Any, capsys: Any) -> None:
    first = ["env.id=Another-v0", "agent=sac", "agent.updates_per_step=100", "total_steps=100000"]
    path = made(*first)
    longer = train_config([f"resume={path}", "total_steps=200000"])
    (path / "config.yaml").write_text(to_yaml(longer))
    config = again(path, *first, "audit.every=auto")  # which was 25 % of the first length
    assert (config.total_steps, config.audit.every, config.eval.every) == (200_000, 25_000, 10_000)
    assert capsys.readouterr().err == "warning: kept from the run: total_steps=200000\n"


@pytest.mark.parametrize("more", [[], ["accelerate=auto"]])
def test_how_updates_are_made_is_kept_where_they_would_be_made_otherwise(
    more: list[str], made: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    monkeypatch.setattr(automatic, "WORTH_COMPILING", 10**9)
    path = made(*SAC, *more)
    monkeypatch.setattr(automatic, "WORTH_COMPILING", 1)  # as in a longer run
    assert again(path, *SAC, *more).accelerate == "none"
    assert capsys.readouterr().err == "warning: kept from the run: accelerate=none\n"


@pytest.mark.parametrize("more", [[], ["accelerate=auto"], ["accelerate=compile"]])
def test_a_compiled_run_goes_on_where_no_compiler_is(
    more: list[str], made: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    path = made(*SAC, "accelerate=compile")
    monkeypatch.setattr(automatic, "compiler", lambda: None)
    assert again(path, *SAC, *more).accelerate == "none"  # of which the checkpoint warns
    assert capsys.readouterr().err == ""


def test_what_is_left_out_is_not_held_against_what_is_given(made: Any, capsys: Any) -> None:
    path = made(*PPO, "agent.n_steps=100", "agent.batch_size=50")
    config = again(path, *PPO, "agent.batch_size=50")  # does not divide the default rollout
    assert config == recorded(path)
    assert "agent.n_steps=100" in capsys.readouterr().err


def test_one_process_of_a_run_warns_and_a_sweep_when_its_job_begins(
    made: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(*A2C, "seed=3")
    monkeypatch.setenv("RANK", "1")
    again(path, *A2C)
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("RANK")
    path.rename(path.parent / "0")
    read_sweep(["-m", *A2C, f"run_dir={path.parent}", "resume=auto", "eval.episodes=3"])
    assert capsys.readouterr().err == ""


def test_true_is_not_1(made: Any) -> None:
    path = made(*A2C, "seed=1", "env.kwargs.g=1")
    for given in ("seed=true", "env.kwargs.g=true"):
        with pytest.raises(ConfigError, match=": true is not the run's value, 1; give"):
            train_config([f"resume={path}", given])
    with pytest.raises(ConfigError, match=r"^env\.kwargs\.g: true is not the run.s value, 1;"):
        again(path, *A2C, "seed=1", "env.kwargs.g=true")


def test_a_long_value_is_not_printed_whole(made: Any, capsys: Any) -> None:
    path = made(*A2C, f"agent.hidden=[{','.join(['8'] * 300)}]")
    again(path, *A2C)
    assert len(capsys.readouterr().err) < 200
