"""Files outside the checkout: `--config-dir DIR`, and `experiment=FILE.yaml`."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from configs import help
from configs.compose import asked, evaluate_config, train_config
from configs.files import options, to_yaml
from configs.sweep import read_sweep
from runtime.launch.door import enter

GLOBAL = "# @package _global_\n"
FILES = {
    "env/mine": "id: Pendulum-v1\nkwargs: {g: 9.0}\n",
    "agent/mysac": "defaults: [sac, _self_]\ntau: 0.1\n",
    "tuned/mine-mysac": f"{GLOBAL}total_steps: 77\nagent: {{lr: 0.5}}\n",
    "experiment/both": f"{GLOBAL}defaults:\n  - override /env: mine\n  - override /agent: mysac\n"
    "seed: 5\n",
}


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """The arguments for a folder of one's own, with a name that takes quoting."""
    for name, text in FILES.items():
        path = tmp_path / "my files, 1" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return ["--config-dir", str(tmp_path / "my files, 1")]


def test_files_of_one_s_own_are_chosen_like_those_of_the_project(
    own: list[str], capsys: Any
) -> None:
    found = asked([*own, "env=mine", "agent=mysac", "agent.critics=3"])
    config, folder = found.config, own[1]
    kwargs = {"g": 9.0}
    given = ["env.id=Pendulum-v1", "env.kwargs.g=9.0", "agent=sac", "agent.tau=0.1", "agent.lr=0.5"]
    assert config == train_config([*given, "agent.critics=3", "total_steps=77"])
    assert found.sources["agent.lr"] == f"{folder}/tuned/mine-mysac.yaml"
    assert f"{folder}/tuned/mine-mysac.yaml, 2 keys" in found.notes()[0][0]
    both = train_config([*own, "+experiment=both", "agent.tau=0.01"])
    assert (both.seed, both.env.kwargs, both.total_steps) == (5, kwargs, 77)
    assert (both.agent.name, both.agent.tau) == ("sac", 0.01)  # type: ignore[attr-defined]
    played = evaluate_config(["policy=x.onnx", "env=mine", f"--config-dir={folder}"])
    assert (played.env.id, played.env.kwargs) == ("Pendulum-v1", kwargs)
    pair = [*own, "env=mine", "agent=mysac"]
    shown = []
    for asked_for in (["--help"], ["--help", "agent.tau"], ["--help", "env.kwargs"], ["--cfg=job"]):
        assert enter("train", lambda config: 1, [*pair, *asked_for]) == 0
        shown.append(capsys.readouterr().out)
    assert "agent.lr=0.5 *" in shown[0]
    assert f"here 0.1, by {folder}/agent/mysac.yaml " in " ".join(shown[1].split())
    assert 'here     {"g":9.0}\n' in shown[2]
    assert f"# {folder}/agent/mysac.yaml: agent.tau\n" in shown[3]
    assert f"# {folder}/env/mine.yaml: env.id env.kwargs.g\n" in shown[3]


def test_a_pair_of_sac_is_not_one_of_an_agent_that_is_based_on_it(own: list[str]) -> None:
    mysac = [*own, "env=pendulum", "agent=mysac"]
    general = train_config(["env=pendulum", "agent=sac", "tuned=null", "agent.tau=0.1"])
    assert train_config(mysac) == general
    tuned = train_config([*mysac, "tuned=pendulum-sac", "agent.tau=0.1"])
    assert tuned == train_config(["env=pendulum", "agent=sac", "agent.tau=0.1"])


def test_a_run_needs_its_files_no_more(own: list[str], tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "run"
    (path / "checkpoints" / "step-000000000000").mkdir(parents=True)
    command = [*own, "env=mine", "agent=mysac", f"run_dir={path}"]
    config = train_config(command)
    (path / "config.yaml").write_text(to_yaml(config))
    assert options("agent") == ["a2c", "ppo", "sac", "sac_discrete"]  # for the next command
    again = train_config([*command, "resume=auto"])
    assert dataclasses.replace(again, resume=None) == config
    for file in Path(own[1]).rglob("*.yaml"):
        file.unlink()
    assert train_config([f"resume={path}"]) == dataclasses.replace(config, resume=str(path))
    assert evaluate_config([f"run={path}"]).run == str(path)
    assert capsys.readouterr().err == ""


def test_each_job_of_a_sweep_has_the_folder(own: list[str]) -> None:
    jobs = read_sweep([*own, "-m", "env=mine", "agent=mysac,ppo", "run_dir=x"]).jobs
    assert [train_config(job).agent.name for job in jobs] == ["sac", "ppo"]


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "env/mine",
            "id: A-v0\nnum_env: 3\n",
            r"^env\.num_env: is not a key, in .*mine\.yaml; did",
        ),
        (
            "tuned/mine-a2c",
            f"{GLOBAL}agent: {{lrr: 1}}\n",
            r"^agent\.lrr: .*a2c\.yaml; did you mean",
        ),
        (
            "tuned/mine-a2c",
            f"{GLOBAL}agent: {{lr: 99}}\n",
            r"^agent\.lr: .*, in .*a2c.yaml; ",
        ),
        ("env/mine", "id: [", r"^env: .*mine\.yaml cannot be read, line"),
        (
            "env/mine",
            "id: A-v0\nkwargs: {a: '${oc.env:HOME}'}\n",
            r"^env\.kwargs\.a: \$\{oc\.env:.*, in .*mine\.yaml; write",
        ),
        (
            "tuned/mine-a2c",
            "agent: {lr: '${sed}'}\n",
            r"^agent\.lr: .*'sed' not found, in .*a2c\.yaml; use",
        ),
        ("env/mine", "_target_: os.system\n", r"^env\._target_: is not a key, in "),
        ("env/pendulum", "id: A-v0\n", r"^--config-dir: .*pendulum.yaml has the name of a file of"),
        ("tuned/pendulum-sac", "", r"^--config-dir: .*; rename it, and choose it by tuned=NAME$"),
    ],
)
def test_files_of_one_s_own_are_checked(file: str, text: str, line: str, own: list[str]) -> None:
    (Path(own[1]) / f"{file}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=line):
        train_config([*own, "env=mine"])


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ([], r"is without a value; give --config-dir VALUE"),
        (["."], r"there is no YAML file in env, agent"),
        (["nowhere"], r"there is no YAML file in env, agent"),
    ],
)
def test_a_folder_without_files_is_refused(
    folder: list[str], why: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^--config-dir: {why}"):
        train_config(["--config-dir", *folder])


def test_an_experiment_may_be_any_file(own: list[str], tmp_path: Path) -> None:
    groups = "defaults:\n  - override /env: pendulum\n  - override /agent: sac\n"
    text = f"{groups}seed: 5\nagent: {{tau: 0.3, critics: 9}}\n"
    for head in ("", GLOBAL):
        (tmp_path / "a b=1.yaml").write_text(head + text)
        found = asked([f"experiment={tmp_path}/a b=1.yaml", "agent.critics=3"])
        pair = ["env=pendulum", "agent=sac", "seed=5", "agent.tau=0.3", "agent.critics=3"]
        assert found.config == train_config(pair)
        assert found.sources["seed"] == f"{tmp_path}/a b=1.yaml"
    (tmp_path / "tuned").mkdir()  # a folder whose name makes no tuned pair
    (tmp_path / "tuned" / "mine.yaml").write_text(f"{groups}total_steps: 9\n")
    found = asked([f"experiment={tmp_path}/tuned/mine.yaml"])
    assert found.notes()[0] == asked(["env=pendulum", "agent=sac", "total_steps=9"]).notes()[0]
    said = help.text("train", ["--help", f"experiment={tmp_path}/tuned/mine.yaml"])
    assert "  total_steps=9   " in said
    with pytest.raises(ConfigError, match=r"^agent: experiment=.* is for agent=sac; leave"):
        train_config([f"experiment={tmp_path}/a b=1.yaml", "agent=ppo"])
    (tmp_path / "more.yml").write_text("defaults: [textbook_a2c, _self_]\nsed: 1\n")
    with pytest.raises(ConfigError, match=r"^sed: is not a key, in .*more.yml; did you mean"):
        train_config([f"+experiment={tmp_path}/more.yml"])
    (tmp_path / "more.yml").write_text("defaults: [textbook_a2c, _self_]\nseed: 1\n")
    config = train_config([f"+experiment={tmp_path}/more.yml"])
    assert config == train_config(["experiment=textbook_a2c", "seed=1"])
    with pytest.raises(ConfigError, match=r"^experiment: 'none.yaml' is not one of .*; choose one"):
        train_config(["experiment=none.yaml"])
