"""The two commands from outside: exit codes, what they say, and which files they leave."""

import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Sequence, Tuple

import evaluate
import train
from common.errors import ConfigError
from configs import automatic
from configs.compose import Asked, evaluate_config, parse, train_config
from configs.files import read_run
from configs.resume import modules_in, require_repeated
from configs.schema import TrainConfig
from runtime.launch.door import enter
from runtime.session import next_commands, typed
from storage.rundir import command
from tests.runtime.test_logger import read

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 400
RESULT = {
    *("steps", "wall_seconds", "steps_per_second", "return_mean", "return_std", "episodes"),
    *("episodes_cut", "seed", "versions", "variables", "revision", "exact", "state_digest"),
}
EVALUATION = {
    *("return_mean", "return_std", "return_min", "return_max", "return_sem", "length_mean"),
    *("episodes", "episodes_cut", "seed", "deterministic", "checkpoint_step"),
}
LENGTH = ["total_steps=400", "eval.episodes=2", "eval.every=200", "checkpoint.every=200"]
TINY = [*LENGTH, "env.num_envs=2", "agent.n_steps=4"]
TINY_SAC = [
    *("env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8", "eval.episodes=1"),
    *("total_steps=60", "agent.learning_starts=20", "eval.every=60", "checkpoint.every=60"),
    "env.num_envs=1",
]


def process(script: str, arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """One of the doors from another directory, with a path that lacks the script's own."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Enters a door in an empty directory; returns (exit code, lines on stderr and warnings)."""
    monkeypatch.chdir(tmp_path)
    runs: dict[str, Any] = {"train": train.run, "evaluate": evaluate.run}

    def call(name: str, *arguments: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)  # Python shows them to nobody
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            code = enter(name, runs[name], list(arguments))
        lines = capsys.readouterr().err.splitlines()
        return code, [*lines, *(str(warning.message) for warning in caught)]

    return call


def refused(door: Any, code: int, name: str, *arguments: str) -> str:
    """The one line on stderr of a door that exits with `code`; codes of 2 leave nothing behind."""
    got, lines = door(name, *arguments)
    assert got == code, lines
    (line,) = lines
    assert line.startswith("error: ")
    assert "Traceback" not in line
    assert len(line) < LONGEST
    assert line.isprintable()
    if code == 2:
        assert os.listdir() == []
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tiny run by the real command: (its directory, the process)."""
    cwd = tmp_path_factory.mktemp("finished")
    done = process("train.py", [*TINY, "run_dir=run"], cwd)
    return cwd / "run", done


@pytest.fixture
def run(finished: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the tiny run, to be spoiled."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def damage(run: Path, step: int, position: int = -1) -> None:
    """Flips one bit of a checkpoint's tensors."""
    path = run / "checkpoints" / f"step-{step:012d}" / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


# configuration: exit code 2, one line, nothing made


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("saac", "did you mean sac?"),  # before torch is imported
        pytest.param("sac", "agent=a2c", marks=pytest.mark.slow),
    ],
)
def test_an_agent_that_does_not_fit_is_refused_by_the_real_command(
    agent: str, words: str, tmp_path: Path
) -> None:
    done = process("train.py", [f"agent={agent}", "env=cartpole"], tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["env.id=Nowhere-v0"], "Nowhere-v0"),
        (["env.id=CartPole-v99"], "CartPole-v99"),
        (["env.id=CartPole"], "CartPole"),
        (["env.id='no id at all'"], "no id at all"),
        (["env.id=''"], "env.id"),
        (["env.id=no_such_module:X-v0"], "no_such_module"),
        (["env.kwargs.nonsense=1"], "nonsense"),
        (["env.kwargs.nonsense=1", "env.vectorization=native"], "nonsense"),
        (["env.kwargs.max_episode_steps=abc"], "max_episode_steps"),
        (["env=acrobot", "env.vectorization=native"], "Acrobot-v1"),
        (["env.wrappers=[Nothing]"], "Nothing"),
        (["env=pendulum", "agent.policy=categorical"], "agent.policy"),
        (["agent.policy=gaussian"], "agent.policy"),
        (["agent.explore_hold=3"], "or choose agent=sac or agent=sac_discrete"),
        (["device=nonsense"], "device"),
        (["device=''"], "device"),
        (["device=meta"], "device"),
        (["device='\x1b[31m'"], "device"),
        (["device=" + "a" * 20_000], "device"),
        (["env.id=" + "a" * 20_000], "env.id"),
        (["run_dir=" + "a" * 20_000], "run_dir"),
        (["resume=nowhere"], "resume"),
        (["agent.lr=0"], "agent.lr"),
        (["agent={a:1}"], "agent"),
        (["agent.lrr=1"], "agent.lr"),
    ],
    ids=lambda value: value[-1][:40] if isinstance(value, list) else value,
)
def test_what_cannot_be_trained_is_refused_before_anything_is_made(
    door: Any, arguments: list[str], named: str
) -> None:
    assert named in refused(door, 2, "train", *TINY, *arguments)


@pytest.mark.skipif(automatic.compiler() is None, reason="no C++ compiler")
def test_a_new_run_whose_updates_cannot_be_compiled_is_refused(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has begun goes on without, with a warning."""

    def broken(*_: object) -> None:
        raise ConfigError("accelerate: compile failed, no memory; use accelerate=none")

    monkeypatch.setattr("runtime.build.accelerate", broken)
    assert "no memory; use" in refused(door, 2, "train", *TINY, "accelerate=compile")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_refused(door: Any) -> None:
    assert "device: cuda" in refused(door, 2, "train", *TINY, "device=cuda")


def test_a_run_directory_that_is_a_file_is_refused(door: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    code, lines = door("train", *TINY, "run_dir=taken")
    assert (code, len(lines)) == (2, 1)
    assert "run_dir" in lines[0]
    assert os.listdir() == ["taken"]
    assert Path("taken").read_text() == "mine"


@pytest.mark.parametrize("debug", ["debug=true", "debug=True", "+debug=true"])
def test_debug_shows_where_and_changes_no_exit_code(debug: str, door: Any) -> None:
    code, lines = door("train", "agent=sac", "env=cartpole", debug)
    assert code == 2
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("error: agent: sac does not support")


def test_evaluate_without_a_run_is_refused_by_the_real_command(tmp_path: Path) -> None:
    done = process("evaluate.py", [], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: run: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", [".", "..", "missing", "/dev/null"])
def test_evaluate_of_a_folder_that_is_no_run_is_refused(door: Any, run: str) -> None:
    assert run in refused(door, 2, "evaluate", f"run={run}")


@pytest.mark.parametrize(
    "content", ["", "5", "[1]", "{", "agent: 5", "agent: {name: [a2c]}", "seed: !!python/name:os"]
)
def test_evaluate_of_a_run_with_a_spoiled_configuration_is_refused(
    door: Any, run: Path, content: str
) -> None:
    (run / "config.yaml").write_text(content)
    code, lines = door("evaluate", f"run={run}")
    assert (code, len(lines)) == (2, 1)


# environments that misbehave


def episode(**changes: Any) -> Any:
    """A well-behaved environment of ten steps, with something changed."""

    class Episode(gymnasium.Env[Any, Any]):
        observation_space: Any = Box(-1.0, 1.0, (3,))
        action_space: Any = Discrete(2)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.count = 0
            return np.zeros(3, np.float32), {}

        def step(self, action: Any) -> Any:
            self.count += 1
            return np.zeros(3, np.float32), 1.0, self.count == 10, False, {}

    for name, change in changes.items():
        setattr(Episode, name, change)
    return Episode


def at_step(number: int, change: Any) -> Any:
    """A `step` like the well-behaved one until step `number`, which returns what `change` says."""

    def step(self: Any, action: Any) -> Any:
        self.count += 1
        row = [np.zeros(3, np.float32), 1.0, self.count == 10, False, {}]
        return tuple(change(row)) if self.count == number else tuple(row)

    return step


def raising(error: Exception) -> Any:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        raise error

    return method


def with_observation(value: Any) -> Any:
    return lambda row: [value, *row[1:]]


def with_reward(value: Any) -> Any:
    return lambda row: [row[0], value, *row[2:]]


BIG = np.float32(3e38)
FAULTY = {  # found out while running: exit code 3
    "NanObs": episode(step=at_step(5, with_observation(np.array([0, math.nan, 0], np.float32)))),
    "InfObs": episode(step=at_step(5, with_observation(np.array([0, 0, math.inf], np.float32)))),
    "InfReward": episode(step=at_step(5, with_reward(math.inf))),
    "NanReward": episode(step=at_step(5, with_reward(math.nan))),
    "HugeReward": episode(step=at_step(5, with_reward(1e300))),
    "NoReward": episode(step=at_step(5, with_reward(None))),
    "ShortObs": episode(step=at_step(5, with_observation(np.zeros(2, np.float32)))),
    "NoObs": episode(step=at_step(5, with_observation(None))),
    "FewResults": episode(step=at_step(5, lambda row: row[:2])),
    "StepRaises": episode(step=raising(ValueError("out of\ntune"))),
    "StepNotWritten": episode(step=raising(NotImplementedError())),
    "StepLong": episode(step=raising(ValueError("x" * 100_000))),
    "ResetRaises": episode(reset=raising(OSError("out of tune"))),
    "ResetNone": episode(reset=lambda self, **options: None),
    "InitRaises": episode(__init__=raising(ZeroDivisionError("out of tune"))),
    "InitTypeError": episode(__init__=raising(TypeError("out of tune"))),
}
UNSERVED = {  # refused for their spaces: exit code 2
    "Unbounded": episode(action_space=Box(-math.inf, math.inf, (2,))),
    "HalfBounded": episode(action_space=Box(0.0, math.inf, (2,))),
    "OneFlat": episode(
        action_space=Box(np.array([-1, 2], np.float32), np.array([1, 2], np.float32))
    ),
    "HugeBounds": episode(action_space=Box(-BIG, BIG, (1,))),
    "NoAction": episode(action_space=Box(-1.0, 1.0, (0,))),
    "IntBox": episode(action_space=Box(0, 5, (2,), np.int64)),
    "TupleAction": episode(action_space=Tuple((Discrete(2), Discrete(2)))),
    "DictAction": episode(action_space=Dict(a=Discrete(2))),
    "MultiAction": episode(action_space=MultiDiscrete([1, 1])),
    "OneAction": episode(action_space=Discrete(1)),
    "Images": episode(observation_space=Box(0, 255, (4, 8, 8, 3), np.uint8)),
    "NoObsParts": episode(observation_space=Box(-1.0, 1.0, (0,))),
    "SequenceObs": episode(observation_space=Sequence(Discrete(2))),
}
for name, made in {**FAULTY, **UNSERVED, "Good": episode()}.items():
    gymnasium.register(f"{name}-v0", entry_point=made)


@pytest.fixture
def in_environment(door: Any, monkeypatch: pytest.MonkeyPatch):
    """Trains in an environment by name, composing the tiny configuration only once."""

    def call(code: int, name: str) -> str:
        config = tiny_config()
        config = dataclasses.replace(config, env=dataclasses.replace(config.env, id=f"{name}-v0"))
        monkeypatch.setattr("configs.compose.asked", lambda arguments: Asked(config))
        line = refused(door, code, "train")
        assert f"{name}-v0" in line
        return line

    return call


@cache
def tiny_config() -> TrainConfig:
    return train_config([*TINY, "env.id=Good-v0"])


def test_the_environment_behind_these_tests_behaves(door: Any) -> None:
    assert door("train", *TINY, "env.id=Good-v0") == (0, [])


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_environment_ends_the_run_with_one_line(in_environment: Any, name: str) -> None:
    in_environment(3, name)
    if "Init" in name or "Reset" in name:  # it never started
        assert os.listdir() == []


@pytest.mark.parametrize("name", UNSERVED)
def test_an_environment_with_unserved_spaces_is_refused(in_environment: Any, name: str) -> None:
    in_environment(2, name)


def test_the_fault_says_what_where_and_when(in_environment: Any) -> None:
    line = in_environment(3, "NanObs")
    assert "observation" in line
    assert "environment 0" in line
    assert "step 10" in line  # the fifth of two environments, counted over both
    line = in_environment(3, "StepNotWritten")  # an exception without a text
    assert "step raised NotImplementedError in method() in environment 0 at step 0; fix" in line


def test_an_environment_of_another_module_is_named_as_it_was_given(
    door: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "outside.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Broken(CartPoleEnv):\n"
        "    def step(self, action):\n"
        "        row = super().step(action)\n"
        "        return (row[0] + float('nan'), *row[1:])\n"
        "gymnasium.register('Broken-v0', entry_point=Broken)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    line = refused(door, 3, "train", *TINY, "env.id=outside:Broken-v0", "run_dir=run")
    assert line.startswith("error: env outside:Broken-v0: observation")


# help


def test_help_of_the_real_command(tmp_path: Path) -> None:
    done = process("train.py", ["--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python train.py")
    assert list(tmp_path.iterdir()) == []


# a run


def test_a_tiny_run_by_the_real_command_says_nothing_on_stderr(finished: Any) -> None:
    path, done = finished
    assert (done.returncode, done.stderr) == (0, "")
    assert "final evaluation: return" in done.stdout
    *_, where, _, board, evaluation = done.stdout.splitlines()
    assert where == f"run directory: {path.name}"
    assert board == "  tensorboard --logdir ."  # where its name is that of its folder
    assert evaluate_config(shlex.split(evaluation)[2:]).run == path.name
    (text,) = read(path).Tensors("command/text_summary")
    kept = text.tensor_proto.string_val[0].decode()
    assert kept == f"```\n{(path / 'commands.txt').read_text()}```"
    assert shlex.split(kept.splitlines()[2]) == [
        "python",
        str(ROOT / "train.py"),
        *TINY,
        "run_dir=run",
    ]


def test_the_command_is_kept_as_it_can_be_pasted(monkeypatch: Any, tmp_path: Path) -> None:
    """With a short path, and none where the words are those of a notebook's kernel."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), "run_dir=a b"])
    assert typed("python") == "python train.py 'run_dir=a b'"
    monkeypatch.chdir(tmp_path)
    assert typed("python") == f"python {ROOT / 'train.py'} 'run_dir=a b'"
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert "train.py" in typed("python")  # %run
    for others in (["/x/ipykernel_launcher.py", "-f", "/x/kernel.json"], [], [""]):
        monkeypatch.setattr(sys, "argv", others)
        assert typed("python") == "# in Python, with the configuration of config.yaml"


def test_what_is_printed_to_do_next_can_be_pasted() -> None:
    for name in ("it's my run/1", 'say "a,b"', "runs/b/$c", "runs/true", "."):
        _, board, evaluation = next_commands(Path(name), "some.module:Env-v0").splitlines()
        config = evaluate_config(shlex.split(evaluation)[2:])
        assert (config.run, config.env.id) == (name, "some.module:Env-v0")
        logdir = Path(shlex.split(board)[2])
        assert Path(name).absolute().is_relative_to(logdir.absolute())
        assert Path(name).absolute() != logdir.absolute()
        assert (logdir == Path("runs")) == name.startswith("runs/")
        for env in ("a.b:C-v0", "CartPole-v1"):
            words = command(Path(name), train_config([f"env.id={env}"]), "eval.stop_at=null")
            again = {key: value for key, _, value in map(parse, shlex.split(words)[2:])}
            own = {"env.id": env} if ":" in env else {}
            assert again == {"resume": name, "eval.stop_at": None} | own


def test_what_is_printed_names_the_environment_where_a_wrapper_has_a_module() -> None:
    """As what reads the run wants it repeated; of another one nothing is repeated."""
    for wrapper, printed in (("tests.helpers:Wrapped", True), ("FlattenObservation", False)):
        env = train_config(["env.id=CartPole-v1", f"env.wrappers=['{wrapper}']"]).env
        assert bool(modules_in(env)) == printed
        require_repeated(env, env.id if printed else None)
        if printed:
            with pytest.raises(ConfigError, match=r"if you trust it, repeat env\.id=CartPole-v1"):
                require_repeated(env, None)


def test_a_run_leaves_exactly_the_documented_files(finished: Any) -> None:
    path, _ = finished
    assert [child.name for child in path.parent.iterdir()] == ["run"]
    events = [child.name for child in path.glob("events.out.tfevents.*")]
    assert len(events) == 1
    names = {child.name for child in path.iterdir()} - {"uncommitted.patch"}  # of a developer
    assert names == {"config.yaml", "commands.txt", "result.json", "checkpoints", *events}
    steps = sorted(child.name for child in (path / "checkpoints").iterdir())
    assert steps == ["step-000000000000", "step-000000000200", "step-000000000400"]
    for step in steps:
        files = {child.name for child in (path / "checkpoints" / step).iterdir()}
        assert files == {"state.safetensors", "state.json", "manifest.json"}


def test_the_result_of_a_run(finished: Any) -> None:
    result = json.loads((finished[0] / "result.json").read_text())
    assert set(result) == RESULT
    assert (result["steps"], result["episodes"], result["seed"]) == (400, 2, 0)
    assert result["wall_seconds"] > 0
    assert result["steps_per_second"] > 0
    assert re.fullmatch("[0-9a-f]{64}", result["state_digest"])
    assert re.fullmatch("[0-9a-f]{40}|none", result["revision"])
    assert {"python", "torch", "gymnasium", "numpy"} <= set(result["versions"])
    assert torch.__version__.startswith(result["versions"]["torch"].split("+")[0])


def test_the_stored_configuration_is_what_was_run(finished: Any) -> None:
    config = read_run(finished[0])
    assert config == train_config([*TINY, "run_dir=run"])
    undecided = [
        key
        for group in (config, config.env, config.log, config.eval, config.checkpoint, config.audit)
        for key, value in vars(group).items()
        if value == "auto"
    ]
    assert undecided == ["max_length"]  # which the environment decides, once it is made


def test_run_dir_by_default_tells_environment_agent_and_seed(door: Any) -> None:
    assert door("train", *TINY, "seed=3", "env.id=outside/x:Good-v0")[0] == 2
    assert door("train", *TINY, "seed=3", "env.id=Good-v0") == (0, [])
    (path,) = Path("runs").glob("*/*/*")
    assert path.parts[1:3] == ("Good-v0", "a2c")
    assert re.fullmatch(r"\d{8}-\d{6}-s3", path.name)


def test_a_run_directory_that_is_taken_gets_a_suffix(door: Any) -> None:
    first = ["train", *TINY, "total_steps=8", "run_dir=same"]
    assert door(*first) == (0, [])
    before = Path("same/result.json").read_bytes()
    code, (line,) = door(*first)
    assert code == 0
    assert line.startswith("warning: run_dir: same is taken, this run is written to same-2; resume")
    assert sorted(os.listdir()) == ["same", "same-2"]
    assert Path("same/result.json").read_bytes() == before


# determinism


def outcome(door: Any, *arguments: str) -> tuple[str, float]:
    """(state digest, final evaluation) of a run that leaves nothing behind."""
    assert door("train", *arguments, "run_dir=run") == (0, [])
    result = json.loads(Path("run/result.json").read_text())
    shutil.rmtree("run")
    return result["state_digest"], result["return_mean"]


TINY_PPO = [*TINY, "agent=ppo", "agent.batch_size=8", "agent.epochs=2"]
TINY_DISCRETE = [*TINY_SAC[2:], "env=cartpole", "agent=sac_discrete"]


@pytest.mark.parametrize("arguments", [TINY, TINY_SAC, TINY_PPO, TINY_DISCRETE],
                         ids=["a2c", "sac", "ppo", "sac_discrete"])  # fmt: skip
def test_the_seed_and_nothing_else_decides_the_state(
    door: Any, finished: Any, arguments: list[str]
) -> None:
    if arguments == TINY:  # from another process
        result = json.loads((finished[0] / "result.json").read_text())
        first = result["state_digest"], result["return_mean"]
    else:
        first = outcome(door, *arguments)
    torch.manual_seed(1234)  # global random states play no part
    np.random.seed(1234)  # noqa: NPY002
    assert outcome(door, *arguments) == first
    often = ["log.every=7", "eval.every=30", "eval.episodes=1", "checkpoint.every=25"]
    often.append("audit.every=40")
    assert outcome(door, *arguments, *often)[0] == first[0]
    assert outcome(door, *arguments, "seed=1")[0] != first[0]


# evaluation


def test_evaluation_writes_its_summary(door: Any, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert door("evaluate", f"run={run}", "episodes=3", "seed=5") == (0, [])
    values = json.loads((run / "evaluation.json").read_text())
    assert set(values) == EVALUATION
    assert (values["episodes"], values["seed"], values["checkpoint_step"]) == (3, 5, 400)
    assert values["deterministic"] is True
    assert values["return_min"] <= values["return_mean"] <= values["return_max"]
    assert values["return_sem"] == pytest.approx(values["return_std"] / 3**0.5)
    assert values["length_mean"] == values["return_mean"]  # a reward of 1 each step
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after.pop(run / "evaluation.json")
    assert after == before


@pytest.mark.parametrize("options", [[], ["deterministic=false"], ["checkpoint=best"]])
def test_evaluating_twice_gives_identical_numbers(door: Any, run: Path, options: list[str]) -> None:
    contents = []
    for _ in range(2):
        assert door("evaluate", f"run={run}", "episodes=4", *options) == (0, [])
        contents.append((run / "evaluation.json").read_bytes())
    assert contents[0] == contents[1]


def test_another_seed_gives_other_episodes(door: Any, run: Path) -> None:
    contents = []
    for seed in (1, 2):
        assert door("evaluate", f"run={run}", "episodes=8", f"seed={seed}") == (0, [])
        contents.append(json.loads((run / "evaluation.json").read_text())["return_mean"])
    assert contents[0] != contents[1]


def test_a_named_checkpoint_is_evaluated(door: Any, run: Path) -> None:
    name = "step-000000000200"
    assert door("evaluate", f"run={run}", "episodes=2", f"checkpoint={name}") == (0, [])
    assert json.loads((run / "evaluation.json").read_text())["checkpoint_step"] == 200


# damage


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    door: Any, run: Path, position: int
) -> None:
    damage(run, 400, position)
    code, lines = door("evaluate", f"run={run}", "episodes=2")
    assert code == 0
    (line,) = lines
    assert "checkpoint" in line
    assert "is damaged (sha256 does not match" in line
    assert "using step-000000000200" in line
    assert json.loads((run / "evaluation.json").read_text())["checkpoint_step"] == 200


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.safetensors", None),
        ("state.json", b""),
        ("manifest.json", None),
        ("manifest.json", b"{}"),
        ("manifest.json", b"[1]"),
        ("manifest.json", b"\xff"),
    ],
)
def test_a_checkpoint_with_a_lost_or_emptied_file_is_not_used(
    door: Any, run: Path, file: str, content: bytes | None
) -> None:
    path = run / "checkpoints" / "step-000000000400" / file
    path.unlink() if content is None else path.write_bytes(content)
    code, lines = door("evaluate", f"run={run}", "episodes=1")
    assert (code, len(lines)) == (0, 1)
    assert "using step-000000000200" in lines[0]


def test_two_damaged_checkpoints_are_two_warnings(door: Any, run: Path) -> None:
    damage(run, 400)
    damage(run, 200)
    code, lines = door("evaluate", f"run={run}", "episodes=1")
    assert (code, len(lines)) == (0, 2)
    assert all("using step-000000000000" in line for line in lines)


def test_nothing_valid_left_is_a_storage_fault(door: Any, run: Path) -> None:
    for step in (0, 200, 400):
        damage(run, step)
    code, lines = door("evaluate", f"run={run}")
    assert (code, len(lines)) == (4, 1)
    assert "is damaged (sha256 does not match" in lines[0]
    assert not (run / "evaluation.json").exists()


def test_a_run_without_checkpoints_is_a_storage_fault(door: Any, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    code, lines = door("evaluate", f"run={run}")
    assert (code, len(lines)) == (4, 1)


def test_a_checkpoint_of_another_network_is_a_storage_fault(door: Any, run: Path) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"hidden:\n( +- \d+\n)+", "hidden: [5]\n", config))
    assert dataclasses.asdict(read_run(run))["agent"]["hidden"] == [5]
    code, lines = door("evaluate", f"run={run}")
    assert (code, len(lines)) == (4, 1)
