"""Files of one's own in `configs/` are YAML: however it is written, it means the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from configs import files
from configs.compose import evaluate_config, train_config
from configs.files import to_yaml
from tools.doctor import known

KEYS = "num_envs: 4\nvectorization: async\nkwargs: {g: 9.0}\ntimeout: 5\n"
WRITTEN = {
    "plain": f"id: Pendulum-v1\n{KEYS}",
    "quoted": f'id: "Pendulum-v1"  # mine\n{KEYS}',
    "single": f"id: 'Pendulum-v1'\n{KEYS}",
    "spaced": f"id : Pendulum-v1\n{KEYS}",
    "last": f"{KEYS}id:\n  Pendulum-v1\n",
    "flow": "{id: Pendulum-v1, num_envs: 4, vectorization: async, kwargs: {g: 9.0}, timeout: 5}\n",
    "json": '{"id": "Pendulum-v1", "num_envs": 4, "vectorization": "async", "kwargs": {"g": 9.0},'
    ' "timeout": 5}\n',
    "folded": f"---\nid: >-\n  Pendulum-v1\n{KEYS}",
    "quoted_key": f'"id": Pendulum-v1\n{KEYS}',
    "2048": f"id: Pendulum-v1\n{KEYS}",
    "my own": f"id: Pendulum-v1\n{KEYS}",
}
SAME = ["env.id=Pendulum-v1", "env.num_envs=4", "env.vectorization=async", "env.kwargs.g=9.0",
        "env.timeout=5"]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes a file into a copy of `configs/`."""
    copy = tmp_path / "configs"
    shutil.copytree(files.DIRECTORY, copy)
    monkeypatch.setattr(files, "DIRECTORY", copy)
    return lambda name, text: (copy / f"{name}.yaml").write_text(text)


@pytest.fixture
def stopped(tmp_path: Path) -> Any:
    """A function that leaves what a run of these arguments has when it was stopped."""

    def begin(*arguments: str) -> Path:
        path = tmp_path / "run"
        (path / "checkpoints" / "step-000000000000").mkdir(parents=True)
        (path / "config.yaml").write_text(to_yaml(train_config([*arguments, f"run_dir={path}"])))
        return path

    return begin


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_means_what_it_means_to_yaml(
    name: str, write: Any, stopped: Any, capsys: Any
) -> None:
    write(f"env/{name}", WRITTEN[name])
    write(f"tuned/{name}-a2c", "# @package _global_\ntotal_steps: 77\n")
    alone = train_config([f"env={name}"])
    assert (alone.env, alone.total_steps) == (train_config(SAME).env, 77)
    assert train_config([f"env={name}", "env.id=Pendulum-v1"]) == alone  # of the same id
    assert train_config(["env.id=Pendulum-v1", f"+env={name}"]) == alone
    path = stopped(f"env={name}")
    assert train_config([f"resume={path}", f"env={name}"]) == train_config([f"resume={path}"])
    assert train_config([f"run_dir={path}", "resume=auto", f"env={name}"]).env == alone.env
    assert evaluate_config([f"run={path}", f"env={name}"]).env.id == "Pendulum-v1"
    assert known("Pendulum-v1", {"g": 9.0}) == name
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("order", [1, -1])
def test_another_id_keeps_the_keys_of_the_file_that_is_named(
    order: int, write: Any, stopped: Any
) -> None:
    write("env/mine", WRITTEN["quoted"])
    write("tuned/mine-a2c", "# @package _global_\ntotal_steps: 77\nagent: {lr: 0.5}\n")
    config = train_config(["env=mine", "env.id=Acrobot-v1"][::order])
    assert config == train_config(["env.id=Acrobot-v1", *SAME[1:]])  # without the tuned pair
    path = stopped("env=mine", "env.id=Acrobot-v1")
    same = [f"resume={path}", "env=mine", "env.id=Acrobot-v1"]
    assert train_config(same).env == config.env
    played = evaluate_config(["policy=x.onnx", *["env=mine", "env.id=Acrobot-v1"][::order]])
    assert (played.env.id, played.env.kwargs) == ("Acrobot-v1", {"g": 9.0})


@pytest.mark.parametrize("file", ["env/cartpole", "env/mine"])
def test_an_id_alone_takes_nothing_from_a_file(file: str, write: Any) -> None:
    write(file, "id: CartPole-v1\nnum_envs: 3\nvectorization: sync\nkwargs: {g: 1}\ntimeout: 5\n")
    for name in ("CartPole-v1", "Acrobot-v1"):
        config = train_config([f"env.id={name}"])
        assert (config.env.num_envs, config.env.kwargs, config.env.timeout) == (8, {}, 60.0)
        assert config.agent.lr == 1e-3


def test_a_file_need_name_no_more_than_what_differs(write: Any) -> None:
    write("env/few", "id: Pendulum-v1\n")
    assert train_config(["env=few"]).env == train_config(["env.id=Pendulum-v1"]).env
    few = train_config(["env=few", "env.timeout=7", "env.num_envs=2", "env.kwargs.g=1.0"]).env
    assert (few.timeout, few.num_envs, few.kwargs) == (7.0, 2, {"g": 1.0})


def test_what_a_file_sets_otherwise_than_the_run_is_kept_and_said(
    write: Any, stopped: Any, capsys: Any
) -> None:
    write("env/mine", WRITTEN["plain"])
    path = stopped("env=mine", "env.num_envs=2")
    write("env/mine", WRITTEN["plain"].replace("g: 9.0", "h: 1"))
    for again in ([f"resume={path}"], [f"run_dir={path}", "resume=auto"]):
        config = train_config([*again, "env=mine"])
        assert (config.env.num_envs, config.env.kwargs) == (2, {"g": 9.0})
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: kept from the run: ")
        assert "env.num_envs=2" in line
        assert "no env.kwargs.h" in line


AGENTS = {
    "plain": "defaults:\n  - override /env: mine\n  - override /agent: sac\n",
    "quoted": "defaults:\n  - override /env: 'mine'\n  - override /agent: \"sac\"  # mine\n",
    "spaced": "defaults:\n  - override /env : mine\n  - override /agent : sac\n",
    "flow": "defaults: [{override /env: mine}, {override /agent: sac}, _self_]\n",
    "together": "defaults:\n  - override /env: mine\n    override /agent: sac\n",
}


@pytest.mark.parametrize("name", AGENTS)
def test_an_experiment_means_what_it_means_to_yaml(name: str, write: Any) -> None:
    write("env/mine", WRITTEN["quoted"])
    write("tuned/mine-sac", "# @package _global_\ntotal_steps: 77\n")
    if name == "together":  # of which Hydra takes one an entry
        write(f"experiment/{name}", f"# @package _global_\n{AGENTS[name]}")
        with pytest.raises(ConfigError, match=r"^configuration: .*together"):
            train_config([f"experiment={name}"])
        return
    write(f"experiment/{name}", f"# @package _global_\n{AGENTS[name]}seed: 3\n")
    config = train_config([f"experiment={name}", "agent.tau=0.25"])  # a key of its agent
    assert (config.env, config.seed) == (train_config(["env=mine", "agent=sac"]).env, 3)
    assert (config.agent.name, config.total_steps) == ("sac", 77)
    assert train_config([f"experiment={name}", "env.id=Pendulum-v1", "agent.tau=0.25"]) == config
    other = train_config([f"experiment={name}", "env.id=Acrobot-v1"])
    assert (other.env.num_envs, other.env.kwargs, other.total_steps) == (4, {"g": 9.0}, 100_000)
    with pytest.raises(ConfigError, match=f"experiment={name} is for agent=sac; leave agent= out"):
        train_config([f"experiment={name}", "agent=a2c"])


@pytest.mark.parametrize("entry", ["plain", "/experiment/plain"])
def test_an_experiment_may_be_made_of_another(entry: str, write: Any) -> None:
    write("env/mine", WRITTEN["quoted"])
    write("experiment/plain", f"# @package _global_\n{AGENTS['plain']}seed: 3\n")
    write("experiment/more", f"# @package _global_\ndefaults: [{entry}, _self_]\nseed: 4\n")
    config = train_config(["experiment=more", "agent.tau=0.25"])
    assert (config.agent.name, config.env.num_envs, config.seed) == ("sac", 4, 4)


def test_an_id_that_an_experiment_sets_gets_no_pair_of_another(write: Any, stopped: Any) -> None:
    write("experiment/mine", "# @package _global_\nenv: {id: Acrobot-v1, num_envs: 5}\n")
    config = train_config(["experiment=mine"])
    assert (config.env.id, config.env.num_envs) == ("Acrobot-v1", 5)
    assert config.agent == train_config(["env.id=Acrobot-v1"]).agent
    path = stopped("experiment=mine")
    write("experiment/mine", "# @package _global_\nenv: {id: Acrobot-v1, num_envs: 6}\n")
    with pytest.raises(ConfigError, match=r"^env\.num_envs: 6 is not the run.s value, 5; "):
        train_config(["experiment=mine", f"run_dir={path}", "resume=auto"])


def test_a_file_of_an_agent_has_the_keys_of_that_agent(write: Any, stopped: Any) -> None:
    text = (files.DIRECTORY / "agent" / "sac.yaml").read_text()
    write("agent/mine", text.replace("name: sac", 'name: "sac"  # mine').replace("0.005", "0.5"))
    config = train_config(["env=pendulum", "agent=mine", "agent.critics=3"])
    assert (config.agent.name, config.agent.tau, config.agent.critics) == ("sac", 0.5, 3)  # type: ignore[attr-defined]
    write("agent/wrong", text.replace("name: sac", "name: sacc"))
    with pytest.raises(ConfigError, match=r"^agent\.name: 'sacc' is not one of .*; correct it$"):
        train_config(["env=pendulum", "agent=wrong"])
    write("agent/wrong", "tau: 0.5\n")
    with pytest.raises(ConfigError, match=r"^agent\.name: is missing; begin the file with def"):
        train_config(["env=pendulum", "agent=wrong"])
    path = stopped("env=pendulum", "agent=mine")
    assert train_config([f"resume={path}", "agent=mine"]).agent.tau == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("more", [[], ["env.id=Pendulum-v1"]])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id: [Pendulum-v1\n", "mine.yaml cannot be read, line 2: "),
        ("id: Pendulum-v1\nid: CartPole-v1\n", "mine.yaml cannot be read, line 2: found duplicate"),
        ("- id\n", "group of keys"),
        ("Pendulum-v1\n", "env.Pendulum-v1: is not a key; "),
        ("id: Pendulum-v1\nnum_env: 3\n", "env.num_env: is not a key; did you mean env.num_envs?"),
        ("id: Pendulum-v1\nkwargs:\n", "env.kwargs: must be a group of keys, got null"),
        ("id: Pendulum-v1\nnum_envs: many\n", "env.num_envs: must be an integer or auto"),
    ],
)
def test_what_is_no_environment_is_one_line(
    text: str, words: str, more: list[str], write: Any
) -> None:
    write("env/mine", text)
    with pytest.raises(ConfigError) as raised:
        train_config(["env=mine", *more])
    assert words in str(raised.value)
    assert known("Acrobot-v1", {}) == "acrobot"  # whoever does not name it is not disturbed


@pytest.mark.parametrize(("text", "words"), [("", "id"), ("num_envs: 3\n", "id")])
def test_a_file_without_an_id_is_told_so_or_given_one(text: str, words: str, write: Any) -> None:
    write("env/mine", text)
    with pytest.raises(ConfigError, match=f"^env.{words}: is missing; give it a value"):
        train_config(["env=mine"])
    assert train_config(["env=mine", "env.id=Acrobot-v1"]).env.id == "Acrobot-v1"


def test_a_tuned_pair_or_an_experiment_that_is_no_yaml_is_named(write: Any) -> None:
    write("tuned/pendulum-a2c", "# @package _global_\nagent: [\n")
    with pytest.raises(ConfigError, match=r"^tuned: .*pendulum-a2c.yaml cannot be read, line 3"):
        train_config(["env=pendulum"])
    write("experiment/mine", "# @package _global_\nagent: [\n")
    with pytest.raises(ConfigError, match=r"^experiment: .*mine.yaml cannot be read, line 3"):
        train_config(["experiment=mine"])


@pytest.mark.parametrize("name", ["5", "null", "true", "été", "a=b", "a,b", "x'y", "range(2)"])
def test_a_file_may_have_any_name(name: str, write: Any) -> None:
    write(f"env/{name}", WRITTEN["plain"])
    for quote in ("", '"'):
        assert train_config([f"env={quote}{name}{quote}"]).env.num_envs == 4
    assert evaluate_config(["policy=x.onnx", f"env={name}"]).env.id == "Pendulum-v1"


HEADED = "# @package _global_\ndefaults: [{override /env: mine}]\nagent: {lr: 0.05}\n"


@pytest.mark.parametrize(("folder", "name"), [("tuned", "mine-a2c"), ("experiment", "one")])
@pytest.mark.parametrize("begins", ["", "# mine\n\n", "\ufeff# @package _global_\n", HEADED[:20]])
def test_the_keys_of_a_pair_or_an_experiment_are_the_run_s_whatever_its_first_line(
    folder: str, name: str, begins: str, write: Any
) -> None:
    write("env/mine", WRITTEN["plain"])
    command = ["env=mine"] if folder == "tuned" else ["experiment=one"]
    for text in (HEADED, "# @package _global_\nagent: {lr: 0.05}\n"):
        if folder == "tuned" and text == HEADED:
            continue  # a pair chooses no environment
        write(f"{folder}/{name}", text.replace("# @package _global_\n", begins))
        assert train_config(command).agent.lr == 0.05


def test_a_file_that_is_no_text_is_named_wherever_it_is_read(write: Any) -> None:
    write("env/mine", "")
    (files.DIRECTORY / "env" / "mine.yaml").write_bytes(b"id: Pendulum-v1  # \xe4\n")
    for more in ([], ["env.id=Acrobot-v1"]):
        with pytest.raises(ConfigError, match=r"^env: .*mine.yaml cannot be read, .*correct the"):
            train_config(["env=mine", *more])


def test_an_environment_that_an_experiment_sets_is_not_chosen_beside_it(write: Any) -> None:
    """The experiment's id would be played, whatever file was chosen."""
    write("experiment/one", "# @package _global_\nenv: {id: Pendulum-v1, num_envs: 3}\n")
    with pytest.raises(ConfigError, match=r"^env: experiment=one is for env.id=Pendulum-v1; leave"):
        train_config(["experiment=one", "env=acrobot"])
    for more, played in (
        (["env=pendulum"], "Pendulum-v1"),
        ([], "Pendulum-v1"),
        (["env=acrobot", "env.id=Acrobot-v1"], "Acrobot-v1"),
    ):
        assert train_config(["experiment=one", *more]).env.id == played


BUILT = {
    "above": "defaults: [pendulum]\nnum_envs: 3\nkwargs: {g: 2.0}\n",
    "below": "defaults:\n  - custom\n  - _self_\nid: Pendulum-v1\nnum_envs: 3\nkwargs: {g: 2.0}\n",
    "placed": "# @package _global_\nenv: {id: Pendulum-v1, num_envs: 3, kwargs: {g: 2.0}}\n",
}


@pytest.mark.parametrize("name", BUILT)
def test_a_file_may_be_built_on_others(name: str, write: Any, stopped: Any, capsys: Any) -> None:
    write(f"env/{name}", BUILT[name])
    env = train_config([f"env={name}"]).env
    assert (env.id, env.num_envs, env.kwargs) == ("Pendulum-v1", 3, {"g": 2.0})
    path = stopped(f"env={name}")
    for again in ([f"resume={path}"], [f"run_dir={path}", "resume=auto"]):
        assert train_config([*again, f"env={name}"]).env == env
    assert evaluate_config([f"run={path}", f"env={name}"]).env.id == "Pendulum-v1"
    assert known("Pendulum-v1", {"g": 2.0}) == name
    assert capsys.readouterr().err == ""
    write(f"env/{name}", BUILT[name].replace("2.0", "5.0"))
    train_config([f"resume={path}", f"env={name}"])
    assert capsys.readouterr().err == "warning: kept from the run: env.kwargs.g=2.0\n"


def test_a_file_may_refer_to_keys_and_to_nothing_else(write: Any) -> None:
    write("env/mine", "id: Pendulum-v1\nkwargs: {g: '${seed}', h: 1}\n")
    assert train_config(["env=mine", "seed=3"]).env.kwargs == {"g": 3, "h": 1}
    nested = "${${env.id}:HOME}"
    for resolver in ("${oc.env:HOME}", "${ oc.env:HOME}", nested, "a${hydra:job.name}"):
        write("env/mine", f"id: Pendulum-v1\nkwargs: {{g: '{resolver}'}}\n")
        with pytest.raises(ConfigError, match=r"^env.kwargs.g: \$\{.+\.\.\.\} would be executed"):
            train_config(["env=mine"])
    write("env/mine", "id: Pendulum-v1\nkwargs: {g: '${sed}'}\n")
    with pytest.raises(
        ConfigError, match=r"^env.kwargs.g: its .* resolved, .*'sed' not found; use"
    ):
        train_config(["env=mine"])


@pytest.mark.parametrize("value", ["!!binary aGVsbG8=", "[1, !!binary aGVsbG8=]"])
def test_an_argument_is_of_what_a_checkpoint_can_write_down(value: str, write: Any) -> None:
    write("env/mine", f"id: Pendulum-v1\nkwargs: {{a: {value}}}\n")
    with pytest.raises(ConfigError, match=r"^env.kwargs.a: must be of texts, finite .*b'hello'"):
        train_config(["env=mine"])
