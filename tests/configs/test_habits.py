"""What people type who know Hydra: every row of docs/hydra.md, and the Tab key."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from configs import completion
from configs.agents import AGENT_GROUPS
from configs.schema import TrainConfig
from configs.sweep import read_sweep
from configs.validate import key_names
from runtime.launch.door import enter, guarded
from tests.tracked import ROOT

PAGE = (ROOT / "docs" / "hydra.md").read_text()
ROWS = [
    (command, remark)
    for cell, remark in re.findall(r"^\| (`.*`) \| (.*) \|$", PAGE, re.M)
    for command in re.findall(r"`([^`]+)`", cell)
]
OWN = re.findall(r"```yaml\n((?:.*\n)*?# DIR/(\S+),(?:.*\n)*?)```", PAGE)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the page, where the commands are typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path").mkdir()
    for text, name in OWN:
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "path" / "to.yaml").write_text("seed: 3\n")


def typed(command: str) -> int:
    """The exit code of train.py, with a run that does nothing."""
    words = shlex.split(command)
    if "-m" in words:
        return guarded(lambda: read_sweep(words) and 0, words)
    return enter("train", lambda config: 0, words)


def test_the_page_has_files_of_each_kind_and_rows_of_both() -> None:
    assert [name.partition("/")[0] for _, name in OWN] == ["env", "agent", "tuned", "experiment"]
    assert len(ROWS) > 30
    assert 10 < sum(remark.startswith("refused: ") for _, remark in ROWS) < 20


@pytest.mark.parametrize(("command", "remark"), ROWS)
def test_what_the_page_has_of_a_habit_is_so(command: str, remark: str, capsys: Any) -> None:
    refused = remark.startswith("refused: ")
    assert typed(command) == (2 if refused else 0)
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == refused
    if refused and (remedies := re.findall(r"`([^`]+)`", remark.partition(":")[2])):
        assert any(word in said.err for word in remedies), said.err


@pytest.mark.parametrize(
    ("habit", "followed"),
    [
        ("hydra.run.dir=out", "run_dir=out"),
        ("hydra/sweeper=optuna seed=1,2", "-m seed=1,2"),
        ("~tuned", "tuned=null"),
        ("--config-name small", "--config-dir own experiment=small"),
        ("--info", "--cfg job"),
        ("--cfg job --resolve", "--cfg job"),
        ("--cfg job -p agent", "--help agent"),
        ("--hlep", "--help"),
        ("env pendulum", "env=pendulum"),
        ("init=None", "init=null"),
        ("--shell-completion install=bash", "--completion bash"),
    ],
)
def test_what_is_done_as_a_refusal_says_is_accepted(habit: str, followed: str, capsys: Any) -> None:
    assert typed(habit) == 2
    said = capsys.readouterr().err
    assert all(word.partition("=")[0].split()[0] in said for word in followed.split(" own ")[-1:])
    assert typed(followed) == 0


COMPLETED = {  # what is typed, before Tab -> what the shell offers
    "python train.py agent=": [*AGENT_GROUPS],
    "python train.py agent=sac": ["sac", "sac_discrete"],
    "python train.py env=pend": ["pendulum"],
    "python train.py tuned=hop": ["hopper-sac"],
    "python train.py agent=sac agent.ta": ["agent.tau=", "agent.target_entropy="],
    "python train.py agent=sac_discrete agent.log_std_m": [],
    "python train.py agent.ta": [],
    "python train.py agent.shared": ["agent.shared_torso="],
    "python train.py agent=mysac agent.atom": ["agent.atoms="],
    "python train.py debug=": ["true", "false"],
    "python train.py seed=1 agent=sac agent.alpha=": ["auto"],
    "python train.py hydra/launcher=job": ["joblib"],
    "python train.py agent.na": [],
    "python train.py -": ["--help", "--cfg", "--config-dir", "--completion", "--multirun"],
    "python train.py agent=sac --con": ["--config-dir"],
    "python evaluate.py --m": [],
    "python evaluate.py run=x det": ["deterministic="],
    "python evaluate.py run=x render=": ["human", "null"],
    "python other.py ag": [],
}
TAB = """
while IFS= read -r COMP_LINE; do
  COMP_POINT=${#COMP_LINE} COMPREPLY=()
  _logpi
  echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes_groups_keys_and_values(shell: str, tmp_path: Path, capsys: Any) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "own" / "agent" / "$(touch bad).yaml").write_text("")
    assert typed(f"--completion {shell} --config-dir own") == 0
    script = capsys.readouterr().out
    begin = 'COMP_WORDBREAKS="=:"' if shell == "bash" else ""
    done = subprocess.run(
        [shell, "-c", f"{begin}\n{script}\n{TAB}"],
        input="".join(f"{line}\n" for line in COMPLETED),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    offered = [line.split() for line in done.stdout.splitlines()]
    if shell == "zsh":  # which takes a word as a whole
        offered = [[word.rpartition("=")[2] or word for word in words] for words in offered]
    expected = {**COMPLETED, "python train.py agent=": sorted([*AGENT_GROUPS, "mysac"])}
    assert dict(zip(COMPLETED, offered, strict=True)) == expected
    assert not (tmp_path / "bad").exists()


def test_completion_has_every_key_of_every_agent() -> None:
    script = completion.script("bash")
    for agent in AGENT_GROUPS:
        words = script.partition(f"*train.py*agent={agent}*) words='")[2].partition("'")[0].split()
        keys = {*key_names(TrainConfig, agent)} - {"agent.name"}
        assert keys <= {word[:-1] for word in words if word.endswith("=")}
    assert typed("--completion fish") == 2
