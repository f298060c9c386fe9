"""The command line becomes one validated configuration, or one line that names the key."""

import dataclasses
import math
import re
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from configs import compose, files, validate
from configs.agents import AGENT_GROUPS, A2CConfig, SACConfig
from configs.compose import asked, evaluate_config, pair_keys, parse, quoted, train_config
from configs.files import options, to_yaml
from configs.schema import EnvConfig, EvaluateConfig, TrainConfig, Wrapper
from configs.validate import ELSEWHERE, Group, alternatives, build, key_names
from runtime.launch.door import enter

CONFIGS = files.DIRECTORY
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
SAC = ["env.id=Another-v0", "agent=sac"]  # an id without a tuned pair
LONGEST = 400


def refusal(compose: Any, arguments: list[str]) -> str:
    """The text of the ConfigError, checked to be one short printable line."""
    with pytest.raises(ConfigError) as caught:
        compose(arguments)
    text = str(caught.value)
    assert text.splitlines() == [text]
    assert text.isprintable()
    assert 0 < len(text) < LONGEST
    return text


def names_key(text: str, key: str) -> bool:
    """Whether the line begins with the key, or with a complaint that names it."""
    return text.startswith(f"{key}: ") or (text.startswith("configuration: ") and key in text)


# what composes


def test_defaults_are_a2c_on_cartpole() -> None:
    config = train_config([])
    assert (config.env.id, config.agent.name) == ("CartPole-v1", "a2c")
    assert isinstance(config.agent, A2CConfig)


def test_every_auto_about_the_run_is_resolved() -> None:
    config = train_config(["env.id=Another-v0", "total_steps=1000000"])
    assert config.env.num_envs == 8
    assert config.env.vectorization == "sync"
    assert isinstance(config.threads, int)
    assert config.threads >= 1
    assert config.accelerate != "auto"
    for name in ("log", "eval", "checkpoint"):
        group = getattr(config, name)
        (declared,) = (d for d in dataclasses.fields(group) if d.name == "every")
        percent = re.search(r"(\d+) % of the run", declared.metadata["doc"])
        assert percent, "its meaning says what the rule is"
        assert group.every == int(percent[1]) * 10_000


def test_automatic_intervals_of_a_short_run_are_at_least_one_step() -> None:
    config = train_config(["total_steps=1"])
    assert config.log.every == 50
    assert (config.eval.every, config.checkpoint.every) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "every"),
    [
        (["agent=sac", "env=pendulum", "total_steps=100000"], 25_000),
        (["agent=sac", "env=pendulum", "total_steps=1000"], 5_000),  # two updates per step
        (["env.id=Another-v0", "agent.n_steps=10", "env.num_envs=4"], 400_000),
        (["env.id=Another-v0", "agent.n_steps=10", "env.num_envs=4", "audit.every=7"], 7),
    ],
)
def test_audits_are_25_percent_of_the_run_and_10_000_updates_apart(
    arguments: list[str], every: int
) -> None:
    assert train_config(arguments).audit.every == every


def test_off_policy_has_one_environment() -> None:
    assert train_config(SAC).env.num_envs == 1


def test_cartpole_is_native() -> None:
    assert train_config(["env=cartpole"]).env.vectorization == "native"


def within(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether every key of nested dictionaries has the same value in others."""
    return all(
        within(value, whole[key]) if isinstance(value, dict) else whole[key] == value
        for key, value in part.items()
    )


@pytest.mark.parametrize("order", [1, -1])
def test_pendulum_and_sac_pick_their_tuned_pair(order: int) -> None:
    tuned = yaml.safe_load((CONFIGS / "tuned" / "pendulum-sac.yaml").read_text())
    config = train_config(["env=pendulum", "agent=sac"][::order])
    assert config.env.id == "Pendulum-v1"
    assert within(tuned, dataclasses.asdict(config))
    assert not within(tuned, dataclasses.asdict(train_config(SAC)))  # it says something


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_of_the_command_line_wins_over_the_tuned_pair(order: int) -> None:
    arguments = ["env=pendulum", "agent=sac", "agent.lr=0.125", "total_steps=777"][::order]
    config = train_config(arguments)
    assert (config.agent.lr, config.total_steps) == (0.125, 777)
    tuned = yaml.safe_load((CONFIGS / "tuned" / "pendulum-sac.yaml").read_text())
    changed = {"total_steps": 777, "agent": {**tuned["agent"], "lr": 0.125}}
    assert within({**tuned, **changed}, dataclasses.asdict(config))  # the rest of the pair stays


def test_a_tuned_pair_is_left_out_or_named() -> None:
    pair = ["env=pendulum", "agent=sac"]
    assert train_config([*pair, "tuned=null"]) == train_config(["env.id=Pendulum-v1", "agent=sac"])
    assert train_config([*pair, "tuned=pendulum-sac"]) == train_config(pair)
    other = train_config(["env.id=Acrobot-v1", "tuned=cartpole-a2c", "seed=2"])
    tuned = yaml.safe_load((CONFIGS / "tuned" / "cartpole-a2c.yaml").read_text())
    assert (other.env.id, other.seed) == ("Acrobot-v1", 2)
    assert within(tuned, dataclasses.asdict(other))


@pytest.mark.parametrize(("keys", "more"), [(11, []), (10, ["agent.lr=0.1"]), (0, ["tuned=null"])])
def test_a_run_names_its_tuned_pair_in_a_line(keys: int, more: list[str], capsys: Any) -> None:
    assert enter("train", lambda config: 0, ["env=pendulum", "agent=sac", *more]) == 0
    line = f"tuned pair: configs/tuned/pendulum-sac.yaml, {keys} keys; tuned=null leaves it out\n"
    assert capsys.readouterr() == (line * (keys > 0), "")


def test_a_value_may_refer_to_other_keys() -> None:
    config = train_config(
        [
            *["agent=ppo", "agent.hidden=[${agent.batch_size},64]", "agent.n_steps=256"],
            *["run_dir=runs/${env.id}/lr${agent.lr}", "agent.batch_size=${agent.n_steps}"],
            *["env.kwargs.x=${seed}", "seed=7", "env=acrobot"],
        ]
    )
    assert (config.agent.hidden, config.agent.batch_size) == ([256, 64], 256)  # type: ignore[attr-defined]
    assert config.run_dir == f"runs/Acrobot-v1/lr{config.agent.lr}"
    assert config.env.kwargs == {"x": 7}
    assert "${" not in to_yaml(config)
    assert evaluate_config(["run=x", "episodes=5", "seed=${episodes}"]).seed == 5


def test_a_whole_number_is_one_however_it_is_written() -> None:
    config = train_config(["total_steps=1e6", "agent.hidden=[6.4e1,32]", "env.kwargs.x=1e1"])
    assert to_yaml(config) == to_yaml(
        train_config(["total_steps=1000000", "agent.hidden=[64,32]", "env.kwargs.x=10.0"])
    )
    assert type(config.total_steps) is int


def test_the_id_of_the_chosen_group_keeps_the_tuned_pair() -> None:
    alone = train_config(["env=pendulum", "agent=sac"])
    assert train_config(["env=pendulum", "env.id=Pendulum-v1", "agent=sac"]) == alone


@pytest.mark.parametrize("group", [[], ["env=cartpole"]])
def test_another_id_means_general_defaults(group: list[str]) -> None:
    config = train_config([*group, "env.id=Acrobot-v1"])
    general = yaml.safe_load((CONFIGS / "agent" / "a2c.yaml").read_text())
    base = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    assert config.env == EnvConfig("Acrobot-v1", 8, "sync", {}, [], 60.0)
    assert dataclasses.asdict(config.agent) == general
    assert config.total_steps == base["total_steps"]


@pytest.mark.parametrize("agent", sorted(AGENT_GROUPS))
def test_another_id_never_gets_a_tuned_pair(agent: str) -> None:
    config = train_config(["env=pendulum", "env.id=Acrobot-v1", f"agent={agent}"])
    general = yaml.safe_load((CONFIGS / "agent" / f"{agent}.yaml").read_text())
    assert dataclasses.asdict(config.agent) == general


@pytest.mark.parametrize(
    ("argument", "kwargs"),
    [
        ("env.kwargs.x=1", {"x": 1}),
        ("+env.kwargs.x=text", {"x": "text"}),
        ("env.kwargs.x=[1,2]", {"x": [1, 2]}),
        ("env.kwargs.x=null", {"x": None}),
    ],
)
def test_arguments_of_the_environment_are_free(argument: str, kwargs: dict[str, Any]) -> None:
    config = train_config([argument])
    assert config.env.kwargs == kwargs
    assert config.env.vectorization == "sync"  # the native form takes no arguments


@pytest.mark.parametrize("agent", ["'sac'", '"sac"'])
def test_a_quoted_group_is_the_same_group(agent: str) -> None:
    config = train_config(["env=pendulum", f"agent={agent}", "agent.tau=0.5"])
    assert isinstance(config.agent, SACConfig)
    assert config.agent.tau == 0.5


def test_the_last_of_two_values_wins() -> None:
    assert train_config(["seed=1", "seed=2"]).seed == 2
    assert train_config(["agent=sac", "agent=a2c"]).agent.name == "a2c"


@pytest.mark.parametrize("env", options("env"))
@pytest.mark.parametrize("agent", options("agent"))
def test_every_environment_composes_with_every_agent(env: str, agent: str) -> None:
    config = train_config([f"env={env}", f"agent={agent}"])
    assert type(config.agent) is AGENT_GROUPS[agent]
    assert "???" not in to_yaml(config)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("plus", ["+", ""])
def test_experiments_compose_to_what_they_say(experiment: str, plus: str) -> None:
    said = yaml.safe_load((CONFIGS / "experiment" / f"{experiment}.yaml").read_text())
    said.pop("defaults", None)
    config = train_config([f"{plus}experiment={experiment}"])
    assert within(said, dataclasses.asdict(config))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_moves_to_another_environment(experiment: str) -> None:
    said = yaml.safe_load((CONFIGS / "experiment" / f"{experiment}.yaml").read_text())
    config = train_config([f"+experiment={experiment}", "env.id=Acrobot-v1"])
    assert (config.env.id, config.env.vectorization) == ("Acrobot-v1", "sync")
    assert within(said.get("agent", {}), dataclasses.asdict(config.agent))


@pytest.mark.parametrize("more", [[], ["env=pendulum"], ["seed=1"], ["env.id=Acrobot-v1"]])
def test_an_experiment_is_for_its_agent_in_every_order(more: list[str]) -> None:
    both = ["experiment=textbook_a2c", "agent=ppo"]
    for command in ([*both, *more], [*both[::-1], *more], [*more, *both]):
        with pytest.raises(ConfigError, match="experiment=textbook_a2c is for agent=a2c; leave"):
            train_config(command)
    assert train_config(["experiment=textbook_a2c", "agent=a2c", *more]).agent.name == "a2c"


def test_the_textbook_experiment_has_nothing_of_the_tuned_pair() -> None:
    assert pair_keys(asked(["experiment=textbook_a2c"]).sources) == []


@pytest.mark.parametrize("key", ["run_dir", "resume"])
@pytest.mark.parametrize("name", ["0", "2024", "1e5"])
def test_a_folder_may_be_named_by_a_number(key: str, name: str) -> None:
    assert parse(f"{key}={name}")[2] == name
    assert train_config([f"run_dir={name}"]).run_dir == name
    assert evaluate_config([f"run={name}"]).run == name


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ("agent.hidden=[64,", "or put quotes around the argument"),
        ("run_dir=~/x", "write out the folder that ~ stands for"),
        ("device=a b=c", "a text as 'device="),
        ("seed=1,2", "give one, or -m for each"),
        ("env.kwargs={a: 1}", "e.g. env.kwargs.NAME=VALUE"),
    ],
)
def test_what_a_shell_or_a_hurry_did_is_told_with_what_helps(argument: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(remedy)):
        train_config([argument])


def test_a_run_directory_without_its_key_is_told_the_keys(tmp_path: Path) -> None:
    """And another folder is not."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(train_config([])))
    for door in (train_config, evaluate_config):
        text = refusal(door, [str(tmp_path / "run")])
        assert text.endswith(f"; give run={tmp_path}/run, to train.py resume={tmp_path}/run")
        assert refusal(door, [str(tmp_path)]).endswith("; --help lists the keys")
    assert train_config([f"resume={tmp_path}/run"]).agent.name == "a2c"
    assert evaluate_config([f"run={tmp_path}/run"]).run == f"{tmp_path}/run"


def test_a_misspelt_limit_of_a_key_is_an_error() -> None:
    assert dict(validate.key("units", ge=1, lt=9).metadata) | {"before": 0} == {
        **{"doc": "units", "before": 0, "ge": 1, "lt": 9}
    }
    with pytest.raises(TypeError, match="gee"):
        validate.key("units", **{"gee": 1})


def test_evaluation_is_not_pointed_at_what_it_refuses() -> None:
    with pytest.raises(ConfigError) as raised:
        evaluate_config(["run=here", "agent=sac"])
    assert "did you mean agent?" not in str(raised.value)


def test_a_file_of_a_run_that_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("[]")
    with pytest.raises(ConfigError, match=f"run: {re.escape(str(tmp_path))}.config.yaml, .*group"):
        train_config([f"resume={tmp_path}"])
    for key, name in (("resume", "x" * 300), ("run", "y" * 300)):
        with pytest.raises(ConfigError, match=f"^{key}: .* cannot be read"):
            (train_config if key == "resume" else evaluated)([f"{key}={name}"])


def evaluated(arguments: list[str]) -> object:
    from runtime.deploy.trained import open_trained

    return open_trained(str(evaluate_config(arguments).run))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_key_of_the_command_line_wins_over_an_experiment(experiment: str) -> None:
    config = train_config([f"+experiment={experiment}", "agent.lr=0.125", "total_steps=777"])
    assert (config.agent.lr, config.total_steps) == (0.125, 777)


def test_the_resolved_configuration_as_yaml_is_plain_and_complete() -> None:
    config = train_config(["env=pendulum", "agent=sac", "env.kwargs.g=9.81", "run_dir=a-b"])
    plain = yaml.safe_load(to_yaml(config))
    assert plain == dataclasses.asdict(config)
    assert build(TrainConfig, plain) == config
    assert train_config([]) == train_config([])


def test_evaluation_has_its_defaults() -> None:
    config = evaluate_config(["run=somewhere/else"])
    assert (config.run, config.episodes, config.deterministic) == ("somewhere/else", 100, True)
    assert config.checkpoint == "latest"


# the YAML files hold exactly the keys of the schema


@pytest.mark.parametrize("path", sorted((CONFIGS / "env").glob("*.yaml")), ids=lambda p: p.stem)
def test_environment_files_have_the_keys_of_the_schema(path: Path) -> None:
    names = {declared.name for declared in dataclasses.fields(EnvConfig)}
    assert {*yaml.safe_load(path.read_text())} == names - {"wrappers"}  # which train.yaml has


@pytest.mark.parametrize("path", sorted((CONFIGS / "agent").glob("*.yaml")), ids=lambda p: p.stem)
def test_agent_files_have_the_keys_of_the_schema(path: Path) -> None:
    plain = yaml.safe_load(path.read_text())
    names = [declared.name for declared in dataclasses.fields(AGENT_GROUPS[path.stem])]
    assert sorted(plain) == sorted(names)
    assert plain["name"] == path.stem


def test_every_agent_of_the_schema_has_a_file() -> None:
    assert options("agent") == sorted(AGENT_GROUPS)


def test_the_train_file_has_the_keys_of_the_schema() -> None:
    plain = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    for name, hint in get_type_hints(TrainConfig).items():
        if name in ("agent", "VARIANTS"):
            continue
        value = plain.pop(name)
        if isinstance(hint, type) and issubclass(hint, Group):
            own = {"id"} if name == "env" else set()  # which its file has
            assert {*value} == {d.name for d in dataclasses.fields(hint)} - own
    assert list(plain) == ["defaults"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"])))
@example('\\"')
@example("a\\")
@example("it's, {so}: 'x'=[1]")
def test_what_is_quoted_is_read_as_it_was(text: str) -> None:
    assume("${" not in text and text != "???")
    assert parse(f"run_dir={quoted(text)}")[2] == text


def test_a_policy_plays_in_the_environment_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    played = train_config(["env=pendulum"])
    kwargs = {"a": "x, y", "b": None, "c": True, "d": {"e": [1]}, "f": "it's", "g": "2"}
    other = dataclasses.replace(played, env=dataclasses.replace(played.env, kwargs=kwargs))
    monkeypatch.setattr(compose, "train_config", lambda _: other)
    config = evaluate_config(["policy=x.onnx", "env=pendulum", "env.kwargs.c=false"])
    assert (config.env.id, config.env.kwargs) == ("Pendulum-v1", {**kwargs, "c": False})


def test_the_evaluate_file_has_the_keys_of_the_schema() -> None:
    plain = yaml.safe_load((CONFIGS / "evaluate.yaml").read_text())
    assert sorted(plain) == sorted(declared.name for declared in dataclasses.fields(EvaluateConfig))


@pytest.mark.parametrize("path", sorted((CONFIGS / "tuned").glob("*.yaml")), ids=lambda p: p.stem)
def test_tuned_files_are_of_existing_pairs(path: Path) -> None:
    env, _, agent = path.stem.rpartition("-")
    assert env in options("env")
    assert agent in options("agent")


# what does not compose

LONG = "a" * 100_000
BAD: dict[str, tuple[list[str], str]] = {  # name: (arguments, the key that the line begins with)
    "unknown key": (["zzzzzz=1"], "zzzzzz"),
    "unknown key with plus": (["+zzzzzz=1"], "zzzzzz"),
    "unknown key with two pluses": (["++zzzzzz=1"], "zzzzzz"),
    "unknown key in a group": (["agent.zzzzzz=1"], "agent.zzzzzz"),
    "unknown group": (["zzz.every=1"], "zzz.every"),
    "key below a key": (["seed.x=1"], "seed.x"),
    "another agent's key": (["agent.tau=0.1"], "agent.tau"),
    "an off-policy agent's lack": (["agent=sac", "agent.n_steps=4"], "agent.n_steps"),
    "the agent's name": (["agent.name=sac"], "agent.name"),
    "defaults": (["defaults=[]"], "defaults"),
    "unknown tuned pair": (["tuned=pendulum-zzz"], "tuned"),
    "tuned pair of another agent": (["tuned=pendulum-sac"], "tuned"),
    "hydra's run directory": (["hydra.run.dir=x"], "hydra.run.dir"),
    "hydra's job": (["hydra.job.chdir=true"], "hydra.job.chdir"),
    "hydra's launcher": (["hydra/launcher=joblib"], "hydra/launcher"),
    "hydra's verbosity": (["hydra.verbose=true"], "hydra.verbose"),
    "target": (["_target_=os.system"], "_target_"),
    "target of a group": (["env._target_=os.system"], "env._target_"),
    "target of the agent": (["agent._target_=os.system"], "agent._target_"),
    "package of a group": (["agent@other=a2c"], "agent@other"),
    "text for an integer": (["seed=abc"], "seed"),
    "quoted integer": (['seed="1"'], "seed"),
    "fraction for an integer": (["seed=1.5"], "seed"),
    "fraction with an exponent": (["total_steps=1.5e0"], "total_steps"),
    "float beyond the exact ones": (["seed=1e18"], "seed"),
    "bool for an integer": (["seed=true"], "seed"),
    "bool for a float": (["agent.lr=true"], "agent.lr"),
    "integer for a bool": (["debug=1"], "debug"),
    "integer for a text": (["env.id=5"], "env.id"),
    "null for an integer": (["seed=null"], "seed"),
    "wrong choice": (["agent.activation=sigmoid"], "agent.activation"),
    "nan": (["agent.lr=nan"], "agent.lr"),
    "nan without a range": ([*SAC, "agent.target_entropy=nan"], "agent.target_entropy"),
    "inf": (["agent.max_grad_norm=inf"], "agent.max_grad_norm"),
    "minus inf": (["agent.lr=-inf"], "agent.lr"),
    "overflow": (["agent.max_grad_norm=1e400"], "agent.max_grad_norm"),
    "nan for an integer": (["seed=nan"], "seed"),
    "empty integer": (["seed="], "seed"),
    "empty list": (["agent.hidden="], "agent.hidden"),
    "empty path": (["run_dir="], "run_dir"),
    "empty quoted path": (['run_dir=""'], "run_dir"),
    "line break in a path": (['run_dir="a\nb"'], "run_dir"),
    "zero learning rate": (["agent.lr=0"], "agent.lr"),
    "negative zero learning rate": (["agent.lr=-0.0"], "agent.lr"),
    "no layer": (["agent.hidden=[]"], "agent.hidden"),
    "integer for a list": (["agent.hidden=64"], "agent.hidden"),
    "list in a list": (["agent.hidden=[[64]]"], "agent.hidden"),
    "list for an integer": (["seed=[1]"], "seed"),
    "dict for an integer": (["seed={a:1}"], "seed"),
    "dict for a float": (["agent.lr={a:1}"], "agent.lr"),
    "scalar for a group": (["log=3"], "log"),
    "null for a group": (["eval=null"], "eval"),
    "agent as a dict": (["agent={a:1}"], "agent"),
    "environment as a dict": (["env={id:x}"], "env"),
    "agent as null": (["agent=null"], "agent"),
    "agent as nothing": (["agent="], "agent"),
    "unknown agent": (["agent=zzz"], "agent"),
    "unknown environment": (["env=cartpol"], "env"),
    "environment by a path": (["env=../agent/a2c"], "env"),
    "internal environment": (["env=custom"], "env"),
    "unknown experiment": (["+experiment=zzz"], "experiment"),
    "no equals": (["seed"], "seed"),
    "two equals": (["seed==1"], "seed"),
    "equals in the value": (["seed=1=2"], "seed"),
    "no key": (["=1"], "=1"),
    "deletion": (["~seed"], "~seed"),
    "flag": (["--multirun"], "--multirun"),
    "empty part of a key": (["agent..lr=1"], "agent..lr"),
    "interpolation": (["seed=${nope}"], "seed"),
    "interpolation of itself": (["seed=${seed}"], "seed"),
    "interpolation of a group": (["agent.lr=${agent}"], "agent.lr"),
    "interpolation that is cut off": (["run_dir=a${seed"], "run_dir"),
    "interpolation of a name": (["env.kwargs.x=${${env.id}}"], "env.kwargs.x"),
    "interpolation for a group": (["agent=${env}"], "agent"),
    "environment variable in a list": (["agent.hidden=[${oc.env:HOME}]"], "agent.hidden"),
    "code": (["env.kwargs.x=${eval:1}"], "env.kwargs.x"),
    "environment variable": (["run_dir=${oc.env:HOME}"], "run_dir"),
    "environment variable in kwargs": (["env.kwargs.x=${oc.env:HOME}"], "env.kwargs.x"),
    "missing mark": (["env.kwargs.x=???"], "env.kwargs.x"),
    "infinite argument": (["env.kwargs.x=inf"], "env.kwargs.x"),
    "argument with a hole": (["env.kwargs.x={a: [1.0, nan]}"], "env.kwargs.x"),
    "missing mark for an integer": (["seed=???"], "seed"),
    "sweep": (["seed=1,2"], "seed"),
    "sweep over agents": (["agent=a2c,sac"], "agent"),
    "sweep by range": (["seed=range(1,3)"], "seed"),
    "sweep by choice": (["seed=choice(1,2)"], "seed"),
    "sweep by glob": (["agent=glob(*)"], "agent"),
    "long integer": (["seed=" + "9" * 100_000], "seed"),
    "integer of hundreds of digits": (["log.every=" + "9" * 400], "log.every"),
    "long choice": ([f"agent.activation={LONG}"], "agent.activation"),
    "long agent": ([f"agent={LONG}"], "agent"),
    "NUL": (["env.id=\x00"], "env.id"),
    "escape": (["device=\x1b[31m"], "device"),
    "line break": (["env.id=a\nb"], "env.id"),
    "carriage return": (["env.id=a\rb"], "env.id"),
    "full-width digit": (["seed=１"], "seed"),
    "line separator": (["seed='1\u2028'"], "seed"),
    "right-to-left override": (["agent.activation='\u202e'"], "agent.activation"),
    "undecodable byte": (["seed='\udcff'"], "seed"),
    "backslash": (["seed=\\"], "seed"),
    "closing brace": (["seed=}"], "seed"),
    "bounds the wrong way round": (
        ["agent.log_std_min=1", "agent.log_std_max=0"],
        "agent.log_std_min",
    ),
    "start outside the bounds": (["agent.log_std_init=3"], "agent.log_std_init"),
    "nothing to detach": (["agent.detach_critic=true"], "agent.detach_critic"),
    "batch beyond the buffer": ([*SAC, "agent.buffer_size=128"], "agent.batch_size"),
    "start beyond the buffer": (
        [*SAC, "agent.buffer_size=1000", "agent.learning_starts=1001"],
        "agent.learning_starts",
    ),
    "environments beyond the buffer": (
        [*SAC, "agent.buffer_size=1000", "env.num_envs=1001"],
        "env.num_envs",
    ),
    "private argument of the environment": (["env.kwargs._target_=os.system"], "env.kwargs."),
    "environment's arguments as a list": (["env.kwargs=[1]"], "env.kwargs"),
    "environment's arguments as a text": (["env.kwargs=zzz"], "env.kwargs"),
    "long text for the environment's arguments": ([f"env.kwargs={LONG}"], "env.kwargs"),
    "long list for a group": (["log=[" + "1," * 300 + "1]"], "log"),
    "long argument of the environment": ([f"env.kwargs.{LONG}.0=1"], "env.kwargs."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_in_one_line_that_names_the_key(name: str) -> None:
    arguments, key = BAD[name]
    text = refusal(train_config, arguments)
    assert names_key(text, key) or (key.endswith(".") and text.startswith(key))


@pytest.mark.parametrize("name", [LONG, f"agent.{LONG}"], ids=["alone", "in a group"])
def test_a_very_long_key_is_named_by_its_beginning(name: str) -> None:
    assert refusal(train_config, [f"{name}=1"]).startswith(name[:50])


@pytest.mark.parametrize(
    ("name", "shown"), [("seed\n", "seed"), ("s\u0435ed", "s\u0435ed"), ("\x1b[31mseed", "seed")]
)
def test_a_key_with_strange_characters_is_named_without_harm(name: str, shown: str) -> None:
    assert shown in refusal(train_config, [f"{name}=1"])


BAD_EVALUATION: dict[str, tuple[list[str], str]] = {
    "no run": ([], "run"),
    "null run": (["run=null"], "run"),
    "list as run": (["run=[5]"], "run"),
    "truth as run": (["run=true"], "run"),
    "typo": (["run=x", "episode=1"], "episode"),
    "a key of training": (["run=x", "agent.lr=1"], "agent.lr"),
    "no episodes": (["run=x", "episodes=0"], "episodes"),
    "nan": (["run=x", "seed=nan"], "seed"),
    "bool": (["run=x", "episodes=true"], "episodes"),
    "number as checkpoint": (["run=x", "checkpoint=5"], "checkpoint"),
    "sweep": (["run=x", "episodes=1,2"], "episodes"),
    "interpolation": (["run=${oc.env:HOME}"], "run"),
    "hydra": (["run=x", "hydra.run.dir=y"], "hydra.run.dir"),
}


@pytest.mark.parametrize("name", BAD_EVALUATION)
def test_bad_arguments_of_evaluation_are_refused_in_one_line(name: str) -> None:
    arguments, key = BAD_EVALUATION[name]
    assert names_key(refusal(evaluate_config, arguments), key)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("sed", "seed"),
        ("total_step", "total_steps"),
        ("rundir", "run_dir"),
        ("agent.Lr", "agent.lr"),
        ("AGENT.GAMMA", "agent.gamma"),
        ("agent.learning_rate", "agent.lr"),
        ("learning_rate", "agent.lr"),
        ("agent.discount", "agent.gamma"),
        ("n_envs", "env.num_envs"),
        ("evl.every", "eval.every"),
        ("chekpoint.every", "checkpoint.every"),
        ("audits.every", "audit.every"),
        ("total_timesteps", "total_steps"),
        ("agent.hiden", "agent.hidden"),
        ("agent.gama", "agent.gamma"),
        ("agent.learnin_rate", "agent.lr"),
        ("env.n_env", "env.num_envs"),
        ("agent.nsteps", "agent.n_steps"),
        ("lr", "agent.lr"),
        ("num_envs", "env.num_envs"),
        ("env.numenvs", "env.num_envs"),
        ("log.evry", "log.every"),
        ("eval.episode", "eval.episodes"),
        ("checkpoint.keeps", "checkpoint.keep"),
    ],
)
def test_a_typo_names_the_key_that_was_meant(typo: str, meant: str) -> None:
    text = refusal(train_config, [f"{typo}=1"])
    assert names_key(text, typo)
    assert f"did you mean {meant}?" in text


@pytest.mark.parametrize("word", sorted(ELSEWHERE))
def test_what_other_libraries_call_a_key_names_it(word: str) -> None:
    every = {
        key.rpartition(".")[-1] for name in AGENT_GROUPS for key in key_names(TrainConfig, name)
    }
    assert set(ELSEWHERE[word]) <= every
    for name in AGENT_GROUPS:
        keys = {k for k in key_names(TrainConfig, name) if k.rpartition(".")[-1] in ELSEWHERE[word]}
        if keys and word not in every:
            text = refusal(train_config, [f"agent={name}", f"{word}=1"])
            assert any(f"did you mean {key}?" in text for key in keys)


@pytest.mark.parametrize("agent", sorted(AGENT_GROUPS))
def test_every_key_with_a_letter_too_many_names_the_key(agent: str) -> None:
    for key in key_names(TrainConfig, agent):
        text = refusal(train_config, [f"agent={agent}", f"{key}{key[-1]}=1"])
        assert f"did you mean {key}?" in text


def test_every_key_of_evaluation_with_a_letter_too_many_names_the_key() -> None:
    for key in key_names(EvaluateConfig):
        assert f"did you mean {key}?" in refusal(evaluate_config, [f"{key}{key[-1]}=1"])


KEYS = [*key_names(TrainConfig, "a2c"), *key_names(TrainConfig, "sac"), "env", "agent", "zzz"]


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@example("seed=\udcff")
@example('run_dir="\udcff"')
@example("")
@given(
    st.text(max_size=30)
    | st.builds(
        "{}={}".format, st.sampled_from(KEYS), st.text("019.e-+'\"[]{}:,=$\\\n #@", max_size=8)
    )
)
def test_any_argument_is_a_configuration_or_one_line(argument: str) -> None:
    try:
        config = train_config([argument])
    except ConfigError as error:
        text = str(error)
        assert text.splitlines() == [text]
        assert text.isprintable()
        assert len(text) < LONGEST
    else:
        to_yaml(config).encode()


# limits, generated from the schema


def ranged() -> list[tuple[str, Any, Any, dict[str, float]]]:
    """(key, door, hint, limits) of every field that has limits, in every group."""
    found = []

    def visit(group: type[Group], door: Any, prefix: str = "") -> None:
        hints = get_type_hints(group)
        for declared in dataclasses.fields(group):
            hint = hints[declared.name]
            if isinstance(hint, type) and issubclass(hint, Group):
                visit(hint, door, f"{prefix}{declared.name}.")
            limits = {k: v for k, v in declared.metadata.items() if k in ("ge", "gt", "le", "lt")}
            if limits:
                found.append((f"{prefix}{declared.name}", door, hint, limits))

    visit(TrainConfig, train_config)  # holds the keys that all agents share
    visit(EvaluateConfig, evaluate_config)
    for group in AGENT_GROUPS.values():
        visit(group, train_config, "agent.")
    unique = {(entry[0], entry[1].__name__): entry for entry in found}
    return list(unique.values())


RANGED = [
    pytest.param(key, door, hint, limit, bound, id=f"{door.__name__}-{key}-{limit}")
    for key, door, hint, limits in ranged()
    for limit, bound in limits.items()
]
COMPANIONS = {  # what must move along for the boundary to fit the other keys
    ("agent.log_std_init", "ge"): {"log_std_min": -20},
    ("agent.log_std_init", "le"): {"log_std_max": 20},
    ("agent.batch_size", "le"): {"buffer_size": 10**9},
    ("agent.buffer_size", "ge"): {"batch_size": 1, "learning_starts": 1},
    ("eval.patience", "ge"): {"episodes": 1},
    ("agent.atoms", "le"): {"reward_scale": 1.0},
}
UNREACHABLE = {("agent.log_std_min", "le"), ("agent.log_std_max", "ge")}  # min < max forbids them


def base(key: str, door: Any) -> list[str]:
    if door is evaluate_config:
        return ["run=x"]
    owners = [agent for agent in ("a2c", "sac", "ppo") if key in key_names(TrainConfig, agent)]
    return [] if owners[0] == "a2c" else [f"agent={owners[0]}"]


def beside(hint: Any, bound: float, up: bool) -> float:
    """The next number above or below the bound, of the field's type."""
    if any(candidate is float for candidate in alternatives(hint)):
        return math.nextafter(float(bound), math.inf if up else -math.inf)
    return int(bound) + (1 if up else -1)


def written(hint: Any, value: float) -> str:
    return f"[{value!r}]" if hint == list[int] else repr(value)


def stored(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config[0] if isinstance(config, list) else config


def test_every_group_has_ranged_fields() -> None:
    assert len(RANGED) >= 50
    for key in ("seed", "agent.lr", "agent.tau", "agent.n_steps", "log.every", "episodes"):
        assert key in [parameters.values[0] for parameters in RANGED]


@cache
def valid(door: Any, agent: str) -> Any:
    return door(["run=x"] if door is evaluate_config else ["env.id=Another-v0", f"agent={agent}"])


def changed(door: Any, key: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(a valid configuration as plain data, its group that holds the key, the key's last part)."""
    agent = (*(given.removeprefix("agent=") for given in base(key, door)), "a2c")[0]
    whole = inner = dataclasses.asdict(valid(door, agent))
    *groups, name = key.split(".")
    for group in groups:
        inner = inner[group]
    return whole, inner, name


def refused_as_data(door: Any, key: str, value: Any) -> str:
    """The refusal of a configuration, as read from a file, that holds `value`."""
    whole, inner, name = changed(door, key)
    inner[name] = value
    kind: Any = EvaluateConfig if door is evaluate_config else TrainConfig
    return refusal(lambda _: build(kind, whole), [])


@pytest.mark.parametrize(("key", "door", "hint", "limit", "bound"), RANGED)
def test_what_lies_beyond_a_limit_is_refused(
    key: str, door: Any, hint: Any, limit: str, bound: float
) -> None:
    beyond = {
        "ge": beside(hint, bound, up=False),
        "le": beside(hint, bound, up=True),
        "gt": bound,
        "lt": bound,
    }[limit]
    text = refused_as_data(door, key, [beyond] if hint == list[int] else beyond)
    assert names_key(text, key)
    assert f"= {bound}" in text or f"{bound}," in text


def last_within(hint: Any, limit: str, bound: float) -> float:
    """The value on the allowed side of a limit that is nearest to it."""
    if limit in ("ge", "le"):
        return float(bound) if float in alternatives(hint) else int(bound)
    return beside(hint, bound, up=limit == "gt")


@pytest.mark.parametrize(("key", "door", "hint", "limit", "bound"), RANGED)
def test_the_last_value_within_a_limit_is_accepted(
    key: str, door: Any, hint: Any, limit: str, bound: float
) -> None:
    whole, inner, name = changed(door, key)
    inner.update(COMPANIONS.get((key, limit), {}))
    last = last_within(hint, limit, bound)
    inner[name] = [last] if hint == list[int] else last
    kind: Any = EvaluateConfig if door is evaluate_config else TrainConfig
    if (key, limit) in UNREACHABLE:
        assert names_key(refusal(lambda _: build(kind, whole), []), "agent.log_std_min")
    else:
        assert stored(build(kind, whole), key) == last


@pytest.mark.parametrize("limit", ["ge", "gt", "le", "lt"])
@pytest.mark.parametrize("agent", sorted(AGENT_GROUPS))
def test_all_limits_can_be_given_on_the_command_line(agent: str, limit: str) -> None:
    known = key_names(TrainConfig, agent)
    given = {
        key: (hint, last_within(hint, limit, limits[limit]))
        for key, door, hint, limits in ranged()
        if door is train_config and limit in limits and key in known
    }
    for entry in (*COMPANIONS, *UNREACHABLE):
        if entry[1] == limit:
            given.pop(entry[0], None)
    texts = [f"{key}={written(*pair)}" for key, pair in given.items()]
    if AGENT_GROUPS[agent].on_policy and limit == "ge":  # a rollout, or minibatch, of one
        texts.append("agent.normalise_advantage=false")
    config = train_config(["env.id=Another-v0", f"agent={agent}", *texts])
    for key, (_, value) in given.items():
        assert stored(config, key) == value


# types, generated from the schema: as read from the file of a run


def every_key() -> list[tuple[str, Any, Any]]:
    """(key, door, hint) of every field of every group."""
    found = []
    for agent, door, group in (
        *((agent, train_config, TrainConfig) for agent in AGENT_GROUPS),
        ("", evaluate_config, EvaluateConfig),
    ):
        for key in key_names(group, agent):
            owner: Any = group
            *groups, name = key.split(".")
            for part in groups:
                owner = AGENT_GROUPS[agent] if part == "agent" else get_type_hints(owner)[part]
            found.append((key, door, get_type_hints(owner)[name]))
    return list({(entry[0], entry[1].__name__): entry for entry in found}.values())


EVERY_KEY = [pytest.param(*entry, id=f"{entry[1].__name__}-{entry[0]}") for entry in every_key()]


def wrong_values(hint: Any) -> list[Any]:
    """Plain data that a field of this type must not take."""
    candidates = alternatives(hint)
    wrong: list[Any] = [math.nan, math.inf, -math.inf, [None], [[]], object, b"1"]
    if type(None) not in candidates:
        wrong.append(None)
    if dict not in [getattr(candidate, "__origin__", candidate) for candidate in candidates]:
        wrong += [{}, {"a": 1}, {"_target_": "os.system"}]
    else:
        wrong += [{"_target_": "os.system"}, {1: 1}, {"": 1}, {"a b": 1}, {"__class__": 1}]
    if str not in candidates:
        wrong += ["", "zzz", "1", "true", "nan", "\x00"]
    if int not in candidates and float not in candidates:
        wrong += [0, 1, 1.0]
    if int in candidates:
        wrong += [1.5, 2.0**60]
    if bool not in candidates:
        wrong += [True, False]
    if list[int] in candidates:
        wrong += [[True], [1.5], ["64"], [-1], {1}]
    elif list[Wrapper] in candidates:
        wrong += [[1], (1,), [["TimeLimit"]], [""], ["a b"], [{}], [{"name": 1}], [{"a": 1}]]
    else:
        wrong += [[], [1], (1,)]
    return wrong


@pytest.mark.parametrize(("key", "door", "hint"), EVERY_KEY)
def test_every_field_refuses_every_wrong_type(key: str, door: Any, hint: Any) -> None:
    for value in wrong_values(hint):
        assert refused_as_data(door, key, value).startswith(key), value


@pytest.mark.parametrize(("key", "door", "hint"), EVERY_KEY)
def test_a_stored_configuration_without_a_key_is_refused(key: str, door: Any, hint: Any) -> None:
    whole, inner, name = changed(door, key)
    del inner[name]
    kind: Any = EvaluateConfig if door is evaluate_config else TrainConfig
    assert refusal(lambda _: build(kind, whole), []).startswith(key)


@pytest.mark.parametrize(
    "stranger", ["_target_", "zzz", "", 5, None, "a\nb", pytest.param(LONG, id="long")]
)
@pytest.mark.parametrize("key", ["seed", "agent.lr", "env.id", "log.every"])
def test_a_stored_configuration_with_a_strange_key_is_refused(key: str, stranger: Any) -> None:
    whole, inner, _ = changed(train_config, key)
    inner[stranger] = 1
    refusal(lambda _: build(TrainConfig, whole), [])


@pytest.mark.parametrize("data", [None, 5, "text", [], {}, {"agent": 5}, {"env": []}])
def test_what_is_no_configuration_at_all_is_refused(data: Any) -> None:
    refusal(lambda _: build(TrainConfig, data), [])


def test_a_count_of_evaluations_without_a_goal_is_warned_of() -> None:
    (warning,) = asked(["eval.stop_after=2"]).notes()[1]
    assert warning == "eval.stop_after: does nothing without eval.stop_at=RETURN"
    assert asked(["eval.stop_after=2", "eval.stop_at=475"]).notes()[1] == []
