"""Where a run comes from: what git tells of the code, and what it is when git tells nothing."""

import errno
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

import train
from runtime.launch.door import enter
from storage import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout with one commit, in the place of this one; (its folder, git in it)."""
    root = tmp_path / "check out"
    for name in ("agents", "data", "runtime/deep", "docs"):
        (root / name).mkdir(parents=True)
    files = {"train.py": "1\n", "evaluate.py": "1\n", "agents/a.py": "1\n", "docs/a.py": "1\n"}
    for name, text in files.items():
        (root / name).write_text(text)

    def git(*arguments):
        name = ["-c", "user.name=n", "-c", "user.email=n@n"]
        done = subprocess.run(["git", *name, *arguments], cwd=root, check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(provenance, "ROOT", root)
    return root, git


def test_what_only_has_the_name_of_code_is_none(checkout):
    """A folder, a pipe that nobody writes to, and the link by which Emacs marks an open file."""
    root, _ = checkout
    before = provenance.code()
    (root / "data/tables.py").mkdir()
    os.mkfifo(root / "data/pipe.py")
    (root / "runtime/.#deep.py").symlink_to("me@host.1234:5")
    assert provenance.code() == before
    provenance.keep_patch(root)


def test_a_patch_makes_the_same_code_of_the_commit(checkout, tmp_path):
    """Also of the doors, of folders in folders, and of files that git does not track."""
    root, git = checkout
    before = provenance.code()
    changes = {
        "train.py": "2\n",
        "evaluate.py": "3\n",
        "runtime/deep/new é.py": "4\n",
        "agents/a.py": "5",
        "configs.yaml": "a: 1\n",
        "data/x.yml": "b: 1\n",
    }
    seen = {before}
    for name, text in changes.items():
        (root / name).write_text(text)
        seen.add(provenance.code())
    assert len(seen) == 5  # YAML is recorded as the configuration
    for name in ("notes.txt", "data/table.csv", "docs/b.py"):
        (root / name).write_text("no code")
    after, status = provenance.code(), git("status", "--porcelain")
    index = (root / ".git/index").read_bytes()
    provenance.keep_patch(tmp_path)
    assert (root / ".git/index").read_bytes() == index
    assert git("status", "--porcelain") == status
    patch = (tmp_path / provenance.PATCH).read_bytes()
    assert b"no code" not in patch
    git("checkout", ".")
    git("clean", "-fdq")
    assert provenance.code() == before
    git("apply", str(tmp_path / provenance.PATCH))
    assert provenance.code() == after
    assert {name: (root / name).read_text() for name in changes} == changes


def test_a_data_set_in_the_checkout_costs_nothing(checkout, monkeypatch):
    root, _ = checkout
    calls = []
    popen = subprocess.Popen

    def counted(command, **options):
        calls.append(command[1])
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    counts = []
    for many in (1, 60):
        for index in range(many):
            (root / f"data/{index}.csv").write_text("1,2\n")
            (root / f"data/{index}.py").write_text("x = 1\n")
        with (root / "data/large.npy").open("wb") as file:
            file.truncate(1 << 40)  # bytes, that nobody reads
        calls.clear()
        patch = provenance.uncommitted()
        assert patch.count(b"+++ b/data/") == many
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 5


@pytest.mark.parametrize("many", [1, 40])
def test_too_much_code_is_one_warning_and_is_not_read(
    many, checkout, tmp_path, monkeypatch, capsys
):
    root, _ = checkout
    (root / "agents/a.py").write_text("2\n")
    for index in range(many):
        size = provenance.LARGEST_PATCH * 2 // many
        (root / f"data/{index}.py").write_bytes(b"#" * (size + index))
    read = []
    ours = provenance.git

    def seen(*arguments, **options):
        answer = ours(*arguments, **options)
        read.append(len(answer))
        return answer

    monkeypatch.setattr(provenance, "git", seen)
    provenance.keep_patch(tmp_path)
    assert not (tmp_path / provenance.PATCH).exists()
    assert max(read) < 10_000  # of names
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: uncommitted changes are not stored with the run: it is more")
    assert line.endswith("; commit it, or name it in .gitignore")
    (root / ".gitignore").write_text("data\n")  # as it says
    provenance.keep_patch(tmp_path)
    assert b"+2" in (tmp_path / provenance.PATCH).read_bytes()
    assert capsys.readouterr().err == ""
    (tmp_path / provenance.PATCH).unlink()
    (root / "agents/a.py").write_bytes(b"#" * (provenance.LARGEST_PATCH + 1))
    provenance.keep_patch(tmp_path)
    assert not (tmp_path / provenance.PATCH).exists()
    assert capsys.readouterr().err == f"{line}\n"


def test_variables_of_git_lead_to_no_other_repository(checkout, tmp_path, monkeypatch):
    root, git = checkout
    commit = git("rev-parse", "HEAD")
    (root / "train.py").write_text("2\n")
    patch = provenance.uncommitted()
    other = tmp_path / "other"
    subprocess.run(["git", "init", str(other)], check=True, capture_output=True)
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_PREFIX": "x/",
        "GIT_INDEX_FILE": other / "index",
        "GIT_OBJECT_DIRECTORY": other,
        "GIT_COMMON_DIR": other / ".git",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert provenance.revision() == commit
    assert provenance.uncommitted() == patch != b""


def test_a_change_in_the_second_of_the_commit_is_seen(checkout):
    """Git tells it from none by the time of its index."""
    root, git = checkout
    git("config", "core.checkStat", "minimal")
    git("config", "core.trustctime", "false")
    file, then = root / "agents/a.py", (10**9, 10**9)
    os.utime(file, then)
    git("update-index", "--refresh")
    file.write_text("2\n")  # as long as before
    for path in (file, root / ".git/index"):
        os.utime(path, then)
    assert b"+2" in provenance.uncommitted()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a folder away")
def test_a_checkout_of_another_user_is_one_warning_whose_remedy_helps(
    checkout, tmp_path, monkeypatch, capsys
):
    root, git = checkout
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.delenv("GIT_CONFIG_COUNT")
    for path in (root, root / ".git"):
        os.chown(path, 12345, 12345)
    assert provenance.revision() == "none"
    monkeypatch.chdir(tmp_path)
    short = ["env.num_envs=1", "agent.n_steps=4", "total_steps=8", "eval.episodes=1"]
    assert enter("train", train.run, [*short, "run_dir=run"]) == 0
    err = capsys.readouterr().err
    (line,) = (x for x in err.splitlines() if x.startswith("warning: the run"))
    assert line.startswith("warning: the run's revision is not recorded: detected dubious owner")
    assert json.loads(Path("run/result.json").read_text())["revision"] == "none"
    command = shlex.split(line[line.index("git config") :])
    subprocess.run(command, check=True)
    assert provenance.revision() == commit
    assert provenance.head() == (commit, "")


def test_outside_git_there_is_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.head() == ("none", "")
    subprocess.run(["git", "init", str(tmp_path)], check=True, capture_output=True)
    assert provenance.head() == ("none", "there is no commit yet; make one")
    monkeypatch.setenv("PATH", "")
    assert "git cannot be started" in provenance.head()[1]


def test_where_git_does_not_tell_what_is_not_committed_there_is_one_warning(
    checkout, tmp_path, capsys
):
    """The commit alone would be taken for the code of the run."""
    root, _ = checkout
    (root / "train.py").write_text("2\n")
    (root / ".git/index").write_bytes(b"garbage")
    provenance.keep_patch(tmp_path)
    assert not (tmp_path / provenance.PATCH).exists()
    line = capsys.readouterr().err
    assert line.startswith("warning: uncommitted changes are not stored with the run: ")
    assert "index" in line
    assert line.count("\n") == 1
    (root / ".git/index").unlink()  # git says that it is bad
    provenance.keep_patch(tmp_path)
    assert (tmp_path / provenance.PATCH).exists()
    assert capsys.readouterr().err == ""


def test_an_index_of_git_that_cannot_be_copied_is_one_warning(
    checkout, tmp_path, monkeypatch, capsys
):
    root, _ = checkout
    (root / "mine.py").write_text("a = 1\n")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("storage.provenance.shutil.copy2", full)
    provenance.keep_patch(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: uncommitted changes are not stored with the run: ")
    assert line.endswith("cannot be copied, No space left on device; free the disk")
