"""A checkout in which somebody works has the same tests as a bare one."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.tracked import ROOT, copied, files, tracked

OWN = {  # what following the pages leaves, and a little more
    "hover.py": "import gymnasium\nimport pickle\n",
    "runs/first/0/config.yaml": "",
    "configs/env/mine.yaml": "id: hover:Hover-v0\n",
    "configs/env/half.yaml": "id: [\n",
    "configs/experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /env: mine\n",
    "configs/agent/mine.yaml": "name: sac\n",
    "configs/tuned/mine-sac.yaml": "# @package _global_\ntotal_steps: 77\n",
    "tools/mine.py": "import pickle\n",
    "docs/mine.md": "[nowhere](nowhere.md) `python train.py zzz=1`\n",
}
SEEN = (  # by tests that look at what there is
    "first or compose_to_what or tuned_files or environment_files or agent_files or has_a_file"
    " or nobody_imports_a_door or leads_somewhere"
)


@pytest.fixture
def checkout(tmp_path):
    """The files of the project in a repository of their own."""
    there = copied(tmp_path / "checkout", tracked())
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=there, env=bare(), check=True)
    return there


def bare():
    """The environment without what a hook of git, or this test, has set."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "PYTEST_", "PYTHONPATH"))
    }


def run(checkout, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=bare(), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_files_of_ones_own_change_no_test(checkout):
    for name, text in OWN.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    pages = ("tests/test_docs.py", "tests/test_architecture.py", "tests/configs/test_compose.py")
    said = run(checkout, "-m", "pytest", "-v", "-k", SEEN, *pages)
    assert re.search(r"=+ \d{3,} passed", said)
    assert not re.search(r"\bmine|\bhalf\b|hover", said)


def test_what_git_does_not_have_is_not_the_projects(tmp_path):
    names = {path.relative_to(ROOT).as_posix() for path in tracked()}
    assert {"train.py", "configs/compose.py", "docs/quickstart.md", "tests/tracked.py"} <= names
    assert not any(name.startswith(("runs/", ".venv/", ".git/")) for name in names)
    assert ROOT / "tools/doctor.py" in files("tools/*.py")
    assert ROOT / "tools/tuning/study.py" not in files("tools/*.py")
    for name in ("agents/a.py", "runs/first/b.py", ".venv/c.py", "agents/__pycache__/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert tracked(tmp_path) == [tmp_path / "agents/a.py"]  # as unpacked from an archive


def shortened(line):
    """A command of the pages with as few steps as its agent learns from."""
    script, *arguments = shlex.split(line.replace("\\\n", " "))[1:]
    arguments = [re.sub(r"range\(\d+\)", "range(2)", argument) for argument in arguments]
    if script == "train.py" and not any("resume=" in argument for argument in arguments):
        soft = any(re.match("agent=.*sac", argument) for argument in arguments)
        arguments += [f"total_steps={1100 if soft else 4096}", "eval.episodes=2"]
    if script == "tools/tune.py":
        arguments = [a for a in arguments if "trials" not in a] + ["trials=1", "total_steps=1100"]
    return script, [a for a in arguments if a != "-c"]


def newest(checkout, agent):
    runs = [file.parent for file in (checkout / "runs").rglob("config.yaml")
            if f"name: {agent}" in file.read_text()]  # fmt: skip
    return max(runs, key=lambda path: path.stat().st_mtime).relative_to(checkout).as_posix()


@pytest.mark.slow
def test_whoever_followed_every_page_to_its_end_has_green_tests(checkout):
    (hover,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/environments.md").read_text(), re.S)
    (saved,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/environments.md").read_text(), re.S)
    (checkout / "hover.py").write_text(hover)
    (checkout / "configs/env/hover_v0.yaml").write_text(saved)
    own = "# @package _global_\ndefaults:\n  - override /env: hover_v0\ntotal_steps: 4096\n"
    (checkout / "configs/experiment/hover.yaml").write_text(own)
    followed = []
    for page in [ROOT / "README.md", *files("docs/*.md")]:
        fences = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)
        blocks = "".join(text for language, text in fences if not language)
        for line in re.findall(r"^python ((?:.*\\\n)*.*)$", blocks, re.M):
            if "slurm" in line:
                continue
            script, arguments = shortened(f"python {line.partition('  #')[0]}")
            agent = "sac" if "Pendulum" in line or "hover" in line else r""
            arguments = [re.sub(r"RUN_DIR|runs/\S*\.\.\.", newest(checkout, agent), argument)
                         if re.search(r"RUN_DIR|\.\.\.", argument) else argument
                         for argument in arguments]  # fmt: skip
            run(checkout, script, *arguments)
            followed.append(script)
    assert {"train.py", "evaluate.py", "tools/doctor.py", "tools/export.py"} <= {*followed}
    assert len(followed) >= 20
    tune = "env=hover_v0 agent=sac trials=1 total_steps=1100 study=runs/tuning/mine"
    run(checkout, "tools/tune.py", *tune.split())
    (found,) = (checkout / "runs/tuning").rglob("hover_v0-sac.yaml")
    (checkout / "configs/tuned" / found.name).write_text(found.read_text())
    run(checkout, "train.py", "env=hover_v0", "agent=sac", "threads=1")
    run(checkout, "train.py", "experiment=hover")
    seen = ("tests/test_docs.py", "tests/test_architecture.py", "tests/configs")
    run(checkout, "-m", "pytest", "-x", "-m", "not slow", *seen, "tests/tools/test_doctor.py")
