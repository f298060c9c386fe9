"""Each message ends with what to do: done as it says, the configuration is accepted."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from configs import automatic, files
from configs.agents import AGENT_GROUPS
from configs.compose import evaluate_config, train_config
from configs.files import read_run, to_yaml
from configs.sweep import read_sweep

ID = "env.id=Another-v0"  # without a tuned pair
SAC = [ID, "agent=sac"]
PPO = [ID, "agent=ppo"]
RUN = ["run=x"]
FILE = ["policy=x.onnx", "env=pendulum"]
GIVEN: dict[str, tuple[Any, list[str], str, list[str]]] = {
    # name: (door, what provokes it, the remedy as written, the same after it)
    "text": (train_config, ["env.id=a=b"], "a text as 'env.id=\"...\"'", ['env.id="a=b"']),
    "argument": (
        *(train_config, ["env.kwargs.x=a=b"], "a text as 'env.kwargs.x=\"...\"'"),
        ['env.kwargs.x="a=b"'],
    ),
    "several": (train_config, ["seed=1,2"], "is several values; give one", ["seed=1"]),
    "text of several": (
        *(train_config, ["env.kwargs.x=a,b"], "a text as 'env.kwargs.x=\"a,b\"'"),
        ['env.kwargs.x="a,b"'],
    ),
    "list of several": (
        *(train_config, ["agent.hidden=64,64"], "a list as 'agent.hidden=[64,64]'"),
        ["agent.hidden=[64,64]"],
    ),
    "flag": (train_config, ["--seed=3"], "write seed=3", ["seed=3"]),
    "number": (train_config, ["seed=1=2"], "cannot be read; correct it, a text as", ["seed=12"]),
    "choice": (
        *(train_config, ["agent.activation=a=b"], "cannot be read; correct it, a text as"),
        ["agent.activation=relu"],
    ),
    "group of one": (train_config, ["agent=a=b"], "cannot be read; correct it", ["agent=a2c"]),
    "list": (
        *(train_config, ["agent.hidden=[64,"], "or put quotes around the argument"),
        shlex.split("'agent.hidden=[64, 64]'"),
    ),
    "home": (
        *(train_config, ["run_dir=~/x"], "write out the folder that ~ stands for"),
        [f"run_dir={Path.home()}/x"],
    ),
    "name": (train_config, ["agent..lr=1"], "is not KEY=VALUE; --help", ["agent.lr=1"]),
    "no list": (
        *(train_config, ["agent.hidden=64"], "got 64; give agent.hidden=[64]"),
        ["agent.hidden=[64]"],
    ),
    "no list of groups": (
        *(
            train_config,
            ["env.wrappers={name: X}"],
            "list of names, and of groups with a name, got",
        ),
        ["env.wrappers=[{name: X}]"],
    ),
    "no list of names": (
        *(train_config, ["env.wrappers=ActionMask"], "give env.wrappers=[ActionMask]"),
        ["env.wrappers=[ActionMask]"],
    ),
    "no value": (train_config, ["seed"], "is not KEY=VALUE; write seed=VALUE, without", ["seed=1"]),
    "no key": (train_config, ["sed"], "is not KEY=VALUE; --help lists the keys", ["seed=1"]),
    "reference": (train_config, ["seed=${x}"], "use a key that --help", ["seed=${total_steps}"]),
    "variable": (
        *(train_config, ["env.kwargs.x=${oc.env:X}"], "write the value, or refer"),
        ["env.kwargs.x=${seed}"],
    ),
    "agent by a key": (train_config, ["agent=${x}"], "write the value itself", ["agent=a2c"]),
    "folder of a key": (
        *(read_sweep, ["seed=1,2", "run_dir=${env.id}"], "write it without ${...}"),
        ["seed=1,2", "run_dir=x"],
    ),
    "missing": (train_config, ["seed=???"], "is missing; give it a value", ["seed=1"]),
    "long": (train_config, [f"env.kwargs.x={'a' * 10_001}"], "shorten", ["env.kwargs.x=aaa"]),
    "sweep's": (
        *(train_config, [ID, "hydra/launcher=joblib"], "leave it out, or add -m to train.py"),
        [ID],
    ),
    "goal": (
        *(train_config, ["eval.stop_at=1", "eval.episodes=0"], "leave it out, or raise eval.epis"),
        ["eval.stop_at=1", "eval.episodes=1"],
    ),
    "typo": (train_config, ["agent.lrr=0.1"], "did you mean agent.lr?", ["agent.lr=0.1"]),
    "group": (train_config, ["log=3"], "set a single one, e.g. log.every", ["log.every=3"]),
    "arguments": (
        *(train_config, ["env.kwargs={a: 1}"], "e.g. env.kwargs.NAME=VALUE"),
        ["env.kwargs.a=1"],
    ),
    "private": (train_config, ["env.kwargs._a=1"], "leave it out", []),
    "endless": (train_config, ["env.kwargs.a=inf"], "finite numbers, true", ["env.kwargs.a=1e300"]),
    "another agent's": (
        *(train_config, [ID, "agent.tau=0.1"], "choose agent=sac or agent=sac_discrete"),
        [*SAC, "agent.tau=0.1"],
    ),
    "tuned pair of another agent": (
        *(train_config, ["tuned=pendulum-sac"], "or choose agent=sac or agent=sac_discrete"),
        ["tuned=pendulum-sac", "agent=sac"],
    ),
    "agent's name": (
        *(train_config, [ID, "agent.name=sac"], "choose with agent=NAME"),
        [ID, "agent=sac"],
    ),
    "agent": (
        train_config,
        ["agent=zzz"],
        f"{', '.join(sorted(AGENT_GROUPS))}; choose one",
        ["agent=a2c"],
    ),
    "experiment": (
        *(train_config, ["experiment=zzz"], "textbook_a2c; choose one"),
        ["experiment=textbook_a2c"],
    ),
    "environment": (train_config, ["env=zzz"], "or give env.id=ID for any other", ["env.id=z"]),
    "near environment": (
        *(train_config, ["env=cartpol"], "did you mean cartpole?"),
        ["env=cartpole"],
    ),
    "experiment's agent": (
        *(train_config, ["experiment=textbook_a2c", "agent=ppo"], "leave agent= out"),
        ["experiment=textbook_a2c"],
    ),
    "type": (train_config, ["total_steps=0.5"], "must be an integer", ["total_steps=100000"]),
    "near choice": (
        *(train_config, ["agent.activation=silo"], "'silo'; did you mean silu?"),
        ["agent.activation=silu"],
    ),
    "no number": (
        *(train_config, ["agent.max_grad_norm=-0.5"], "null, > 0, got -0.5; give such a value"),
        ["agent.max_grad_norm=0.5"],
    ),
    "no choice": (train_config, ["device=3"], "got 3; give such a value", ["device=cpu"]),
    "range": (train_config, ["agent.gamma=2"], ">= 0, <= 1, got 2; give", ["agent.gamma=1"]),
    "layers": (train_config, ["agent.hidden=[]"], "e.g. [64,64]", ["agent.hidden=[64,64]"]),
    "bounds": (
        *(train_config, [ID, "agent.log_std_min=3"], "log_std_max=2; lower it"),
        [ID, "agent.log_std_min=-3"],
    ),
    "start": (
        *(train_config, [ID, "agent.log_std_init=3"], "[log_std_min, log_std_max]; move it inside"),
        [ID, "agent.log_std_init=2"],
    ),
    "detach": (
        *(train_config, [ID, "agent.detach_critic=true"], "set agent.shared_torso=true too"),
        [ID, "agent.detach_critic=true", "agent.shared_torso=true"],
    ),
    "clip": (
        *(train_config, [*PPO, "agent.clip_schedule=linear"], "set agent.lr_schedule=linear too"),
        [*PPO, "agent.clip_schedule=linear", "agent.lr_schedule=linear"],
    ),
    "minibatch of one": (
        *(train_config, [*PPO, "agent.batch_size=1"], "raise it, or set agent.normalise_adv"),
        [*PPO, "agent.batch_size=2"],
    ),
    "minibatch of one, too": (
        *(train_config, [*PPO, "agent.batch_size=1"], "or set agent.normalise_advantage=false"),
        [*PPO, "agent.batch_size=1", "agent.normalise_advantage=false"],
    ),
    "minibatches": (
        *(train_config, [*PPO, "agent.batch_size=100"], "= 2048 steps; use agent.n_steps=275"),
        [*PPO, "agent.batch_size=100", "agent.n_steps=275"],
    ),
    "minibatches of a short rollout": (
        train_config,
        [*PPO, "env.num_envs=6", "agent.n_steps=1", "agent.batch_size=64"],
        "= 6 steps; use agent.n_steps=32",
        [*PPO, "env.num_envs=6", "agent.n_steps=32", "agent.batch_size=64"],
    ),
    "no minibatches": (
        train_config,
        [*PPO, "env.num_envs=1", "agent.n_steps=7", "agent.batch_size=6"],
        "= 7 steps; use agent.n_steps=12",
        [*PPO, "env.num_envs=1", "agent.n_steps=12", "agent.batch_size=6"],
    ),
    "no minibatches of several": (
        train_config,
        [*PPO, "env.num_envs=5", "agent.n_steps=1", "agent.batch_size=4"],
        "= 5 steps; use agent.n_steps=4",
        [*PPO, "env.num_envs=5", "agent.n_steps=4", "agent.batch_size=4"],
    ),
    "one advantage": (
        train_config,
        [ID, "agent.n_steps=1", "env.num_envs=1"],
        "raise it, or set agent.normalise_advantage=false",
        [ID, "agent.n_steps=2", "env.num_envs=1"],
    ),
    "batch": (
        *(train_config, [*SAC, "agent.buffer_size=128"], "enlarge the buffer"),
        [*SAC, "agent.buffer_size=2000"],
    ),
    "learning starts": (
        *(train_config, [*SAC, "agent.learning_starts=2000000"], "enlarge the buffer"),
        [*SAC, "agent.learning_starts=2000000", "agent.buffer_size=2000000"],
    ),
    "copies": (
        train_config,
        [*SAC, "agent.buffer_size=1000", "env.num_envs=1001"],
        "enlarge the buffer",
        [*SAC, "agent.buffer_size=1001", "env.num_envs=1001"],
    ),
    "atoms": (train_config, [*SAC, "agent.atoms=1"], "use 0, or 51", [*SAC, "agent.atoms=51"]),
    "graph": (
        *(train_config, [ID, "accelerate=cudagraph"], "needs device=cuda, got cpu; use compile or"),
        [ID, "accelerate=none"],
    ),
    "graph on a GPU": (
        *(train_config, [ID, "accelerate=cudagraph"], "needs device=cuda"),
        [ID, "accelerate=cudagraph", "device=cuda"],
    ),
    "where": (train_config, ["resume=auto"], "give run_dir=DIR", ["resume=auto", "run_dir=new"]),
    "nothing": (evaluate_config, [], "give run=RUN_DIR, or policy=FILE and env=NAME", RUN),
    "nothing, a file": (evaluate_config, [], "or policy=FILE and env=NAME", FILE),
    "both": (evaluate_config, [*RUN, *FILE], "give run=RUN_DIR, or policy=FILE", FILE),
    "window": (
        *(evaluate_config, [*RUN, "video=true", "render=human"], "leave one out"),
        [*RUN, "video=true"],
    ),
    "no environment": (evaluate_config, FILE[:1], "give env=NAME or env.id=ID", FILE),
    "no environment, an id": (evaluate_config, FILE[:1], "or env.id=ID", [FILE[0], "env.id=ID"]),
    "checkpoint": (evaluate_config, [*FILE, "checkpoint=best"], "leave it out", FILE),
    "draws": (evaluate_config, [*FILE, "deterministic=false"], "leave it out", FILE),
    "key of training": (evaluate_config, [*RUN, "episode=1"], "episodes?", [*RUN, "episodes=1"]),
    "jobs": (read_sweep, ["seed=range(2000)"], "give fewer values", ["seed=range(2)"]),
    "no values": (read_sweep, ["seed=interval(1,3)"], "list them", ["seed=1,2,3"]),
    "empty range": (read_sweep, ["seed=range(1,1)"], "list them", ["seed=1"]),
    "folders": (
        *(read_sweep, ["seed=1,2", "run_dir=a,b"], "give one, in quotes if it has a comma, and no"),
        ["seed=1,2", "run_dir=a"],
    ),
    "folder and sweep's": (
        *(read_sweep, ["run_dir=a", "hydra.sweep.dir=b"], "and no hydra.sweep.dir beside it"),
        ["run_dir=a"],
    ),
    "single run": (
        *(read_sweep, ["seed=1,2", "resume=a"], "give its run_dir and resume=auto"),
        ["seed=1,2", "run_dir=a", "resume=auto"],
    ),
    "launcher": (
        *(
            read_sweep,
            ["hydra/launcher=nope"],
            "joblib, submitit_local, submitit_slurm; choose one",
        ),
        ["hydra/launcher=joblib"],
    ),
    "near launcher": (
        *(read_sweep, ["hydra/launcher=joblb"], "did you mean joblib?"),
        ["hydra/launcher=joblib"],
    ),
    "no launcher": (
        *(read_sweep, ["hydra.launcher.n_jobs=1"], "choose hydra/launcher=NAME"),
        ["hydra.launcher.n_jobs=1", "hydra/launcher=joblib"],
    ),
    "launcher's key": (
        *(
            read_sweep,
            ["hydra/launcher=joblib", "hydra.launcher.n_job=1"],
            "hydra.launcher.n_jobs?",
        ),
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
    ),
    "unlike any key of it": (
        read_sweep,
        ["hydra/launcher=joblib", "hydra.launcher.zzz=1"],
        "is not a key; choose one of n_jobs, backend, prefer, require, verbose, timeout, pre_",
        ["hydra/launcher=joblib", "hydra.launcher.verbose=1"],
    ),
    "hydra's": (read_sweep, ["hydra.run.dir=x"], "give run_dir=DIR", ["run_dir=x"]),
    "hydra's others": (
        *(
            read_sweep,
            ["hydra.job.name=x"],
            "set hydra/launcher, hydra.launcher.*, hydra.sweep.dir",
        ),
        ["hydra.sweep.dir=x"],
    ),
}


def refused(door: Any, arguments: list[str]) -> str:
    with pytest.raises(ConfigError) as raised:
        door(arguments)
    return str(raised.value)


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_done_as_the_message_says_is_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    door, provoked, remedy, followed = GIVEN[name]
    assert remedy in refused(door, provoked)
    door(followed)


@pytest.mark.parametrize(
    ("arguments", "followed"),
    [([ID, "accelerate=compile"], [ID, "accelerate=none"]), ([ID, "accelerate=compile"], None)],
)
def test_what_cannot_be_compiled_is_not_or_here_after_an_installation(
    arguments: list[str], followed: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "compiler", lambda: None)
    assert "install g++ and python3-dev, or use none" in refused(train_config, arguments)
    if followed is None:
        monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    train_config(followed or arguments)


def test_several_processes_do_without_a_graph_and_a_sweep_without_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert refused(train_config, [ID, "accelerate=compile"]).endswith("use none")
    train_config([ID, "accelerate=none"])
    said = refused(read_sweep, ["seed=1,2"])
    assert said.endswith("use hydra/launcher=joblib in its place")
    monkeypatch.delenv("RANK")
    read_sweep(["seed=1,2", "hydra/launcher=joblib"])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that leaves what a run of these arguments has when it was stopped."""
    monkeypatch.chdir(tmp_path)

    def begin(*arguments: str) -> Path:
        path = Path("runs/run")
        (path / "checkpoints" / "step-000000000000").mkdir(parents=True, exist_ok=True)
        (path / "config.yaml").write_text(to_yaml(train_config([*arguments, f"run_dir={path}"])))
        return path

    return begin


@pytest.mark.parametrize(
    ("made", "provoked", "remedy", "followed"),
    [
        ([ID], ["seed=3"], "value, 0; give that, or begin another run", ["seed=0"]),
        ([ID], ["env=cartpole"], "value, 'Another-v0'; give that, or", [ID]),
        ([ID], ["agent=sac"], "value, 'a2c'; give that, or", ["agent=a2c"]),
        ([ID], ["experiment=textbook_a2c"], "leave it out", []),
        ([ID], ["run_dir=elsewhere"], "is not runs/run; leave it out", []),
        ([ID], ["total_steps=5"], "give more, or leave it out", ["total_steps=200000"]),
        ([ID], ["total_steps=5"], "or leave it out", []),
        ([ID], ["total_steps=${eval.every}"], "write the value itself", ["total_steps=200000"]),
        ([ID], ["agent.lrr=1"], "did you mean agent.lr?", ["agent.lr=0.001"]),
        (["env.id=mine:A-v0"], [], "repeat env.id=mine:A-v0", ["env.id=mine:A-v0"]),
    ],
)
def test_a_run_goes_on_as_the_message_says(
    made: list[str], provoked: list[str], remedy: str, followed: list[str], run: Any
) -> None:
    path = run(*made)
    assert remedy in refused(train_config, [f"resume={path}", *provoked])
    train_config([f"resume={path}", *followed])


@pytest.mark.parametrize(
    ("made", "provoked", "remedy", "followed"),
    [
        ([*SAC, "seed=3"], [*SAC, "seed=4"], "value, 3; give that, or", [*SAC, "seed=3"]),
        (SAC, [ID], "agent: 'a2c' is not the run's value, 'sac'; give that", SAC),
        (SAC, SAC[1:], "env.id: 'CartPole-v1' is not the run's value, 'Another", SAC),
        (SAC, [*SAC, "env.kwargs.a=1"], "value, none; leave it out, or begin another run", SAC),
        (["env.id=mine:A-v0"], [], "repeat env.id=mine:A-v0", ["env.id=mine:A-v0"]),
    ],
)
def test_the_same_command_goes_on_as_the_message_says(
    made: list[str], provoked: list[str], remedy: str, followed: list[str], run: Any
) -> None:
    auto = [f"run_dir={run(*made)}", "resume=auto"]
    assert remedy in refused(train_config, [*auto, *provoked])
    assert train_config([*auto, *followed]) == read_auto(auto[0])
    train_config(["run_dir=another", "resume=auto", *provoked])


def read_auto(run_dir: str) -> Any:
    from dataclasses import replace

    return replace(read_run(Path(run_dir.removeprefix("run_dir="))), resume="auto")


def test_a_directory_that_is_no_run_names_one_that_is(run: Any) -> None:
    path = run(ID)
    for door, key in ((train_config, "resume"), (evaluated, "run")):
        said = refused(door, [f"{key}=runs"])
        assert said.endswith(f"give one that holds config.yaml, such as {path}")
        door([f"{key}={path}"])
        assert refused(door, [f"{key}={'x' * 300}"]).endswith(f"such as {path}")
        assert refused(door, [f"{key}=nowhere"]).endswith(f"such as {path}")
        assert refused(door, [f"{key}={'x' * 300}/y"]).endswith(f"such as {path}")
    shutil.copytree(path, "runs/newer")
    for part in ("config.yaml", "checkpoints/step-000000000000"):
        assert refused(train_config, [f"resume={path}/{part}"]).endswith(f"such as {path}")


def evaluated(arguments: list[str]) -> Any:
    from configs.files import require_run

    return require_run("run", str(evaluate_config(arguments).run))


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ("seed: 0", "seed: [", "cannot be read; restore it"),
        ("seed: 0", "sed: 0", "sed: is not a key; did you mean seed? in that file"),
        ("seed: 0\n", "", "seed: is missing; give it a value in that file"),
        ("seed: 0", "seed: x", "808, got 'x'; give such a value in that file"),
        ("name: a2c", "name: zzz", "; correct it in that file"),
        ("  gamma: 0.99", "  gamma: &a 0.99\n  tau: *a", "cannot be read; restore it"),
    ],
)
def test_the_configuration_of_a_run_that_was_edited_is_mended_as_the_message_says(
    old: str, new: str, remedy: str, run: Any
) -> None:
    path = run(ID)
    file = path / "config.yaml"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    said = refused(train_config, [f"resume={path}"])
    assert str(file) in said
    assert remedy in said
    file.write_text(file.read_text().replace(new, old) if new else text)
    train_config([f"resume={path}"])


def test_a_sweep_beside_another_goes_on_with_it_or_elsewhere(run: Any) -> None:
    path = run("seed=1")
    path.rename("runs/0")
    sweep = ["seed=1,2", "run_dir=runs"]
    assert refused(read_sweep, sweep).endswith("name a new one, or continue them by resume=auto")
    read_sweep([*sweep, "resume=auto"])
    read_sweep(["seed=1,2", "run_dir=new"])


def test_a_file_of_configs_that_is_wrong_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "configs"
    shutil.copytree(files.DIRECTORY, copy)
    monkeypatch.setattr(files, "DIRECTORY", copy)
    wrong = {  # file: (arguments, wrong, right)
        "env/mine": (["env=mine"], "id: [", "id: A-v0"),
        "experiment/mine": (["experiment=mine"], "seed: [", "seed: 3"),
        "tuned/pendulum-a2c": (["env=pendulum"], "seed: {", "seed: 3"),
        "agent/mine": (["agent=mine"], "- sac", (copy / "agent" / "sac.yaml").read_text()),
        "experiment/other": (["experiment=other"], "defaults: [override /agent: zzz]", "seed: 3"),
    }
    for name, (arguments, bad, good) in wrong.items():
        head = "" if name.startswith(("env", "agent")) else "# @package _global_\n"
        (copy / f"{name}.yaml").write_text(head + bad)
        said = refused(train_config, arguments)
        assert "correct the file" in said
        assert f"{name}.yaml" in said or "agent/zzz" in said
        (copy / f"{name}.yaml").write_text(head + good)
        train_config(arguments)
