"""Whatever is typed, or lies in a run directory, is data: one line, and nothing happens."""

import json
import os
import random
import shutil
import string
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import evaluate
import train
from common.errors import StorageFault
from configs.agents import AGENT_GROUPS
from configs.compose import quoted
from configs.schema import TrainConfig
from configs.validate import Group, key_names
from runtime.launch.door import enter
from storage import checkpoint
from storage.checkpoint import seal_of

LONG = pytest.mark.faults
TINY = ["total_steps=64", "eval.episodes=1", "env.num_envs=2", "agent.n_steps=4"]
NOT_NUMBERS = ["abc", "''", "[1]", "{a: 1}", "nan", "inf", "-inf", "1e999", "1 2", "0x1g", "1_"]
CANARY = "canary"  # a file that nothing may make


def declared(group: type[Group], prefix: str = "", agent: str = "a2c"):
    """(key, type hint, limits) of every single key."""
    from typing import get_type_hints

    hints = get_type_hints(group)
    for field in fields(group):
        hint = hints[field.name]
        variants = group.VARIANTS.get(field.name)
        if isinstance(hint, type) and issubclass(hint, Group):
            inner = variants[agent] if variants else hint
            yield from declared(inner, f"{prefix}{field.name}.", agent)
        else:
            yield f"{prefix}{field.name}", hint, field.metadata


def misspelt(key: str, chance: random.Random) -> str:
    """The key with one letter changed, dropped, doubled or swapped."""
    group, dot, name = key.rpartition(".")
    spot = chance.randrange(len(name))
    changed = chance.choice(
        [
            name[:spot] + name[spot + 1 :],
            name[:spot] + name[spot] * 2 + name[spot + 1 :],
            name[:spot] + chance.choice(string.ascii_lowercase) + name[spot + 1 :],
            name[:spot] + name[spot + 1 : spot + 2] + name[spot] + name[spot + 2 :],
        ]
    )
    return f"{group}{dot}{changed}"


def bad_override(chance: random.Random) -> tuple[list[str], str]:
    """(arguments, what the line has to name)."""
    agent = chance.choice(list(AGENT_GROUPS))
    base = [f"agent={agent}"] + (["env=pendulum"] if agent == "sac" else [])
    known = list(declared(TrainConfig, agent=agent))
    key, hint, limits = chance.choice(known)
    text = str(hint)
    kind = chance.randrange(9)
    if kind == 0:
        while (wrong := misspelt(key, chance)) in key_names(TrainConfig, agent) or not wrong:
            pass
        return [*base, f"{wrong}=1"], wrong
    if kind == 1 and limits.keys() & {"ge", "gt", "le", "lt"}:
        limit = chance.choice([name for name in ("ge", "gt", "le", "lt") if name in limits])
        bound = limits[limit]
        step = 1 if "int" in text else abs(bound) * 1e-3 + 1e-3
        value = {"ge": bound - step, "gt": bound, "le": bound + step, "lt": bound}[limit]
        value = [value] if "list" in text else value
        return [*base, f"{key}={value}"], key
    if kind == 2:
        return [*base, f"{key}=${{{chance.choice(['oc.env:HOME', 'nope', 'env.nope'])}}}"], key
    if kind == 3:
        return [*base, f"{key}"], key
    if kind == 4:
        return [*base, f"{key}=" + "x" * chance.choice([10_001, 1_000_000])], key
    if kind == 5:
        group = chance.choice(["env", "agent"])
        value = chance.choice(["nothing", "{a: 1}", "[a2c]", "1", "null", "''", "../agent/a2c"])
        return [f"{group}={value}"], group
    if kind == 6:
        group = chance.choice(["log", "eval", "checkpoint", "audit"])
        return [*base, f"{group}={chance.choice(['1', '{every: 5}', 'null', '[]'])}"], group
    if kind == 7:
        return [*base, f"{key}=" + chance.choice(["[1,[2]]", "{_target_: os.getcwd}", "???"])], key
    if "int" in text or "float" in text:
        choices = [v for v in NOT_NUMBERS if not (v == "[1]" and "list" in text)]
        choices += ["true", "10" + "0" * 400] + (["1.5"] if "float" not in text else [])
        choices += ["null"] if "None" not in text else []
        return [*base, f"{key}={chance.choice(choices)}"], key
    if "Literal" in text:
        return [*base, f"{key}={chance.choice(['nothing', '1', 'true', '[a]', '1e5'])}"], key
    if "bool" in text:
        return [
            *base,
            f"{key}={chance.choice(['1', '0', 'yes please', 'null', '[true]', '2'])}",
        ], key
    return [*base, f"{key}={chance.choice(['[1]', '{a: 1}', '1.5', 'true'])}"], key


def valid(arguments: list[str]) -> bool:
    """`env.kwargs={a: 1}` and a few like it are no mistakes."""
    return any(a.startswith("env.kwargs={a") for a in arguments)


def cases(count: int) -> list[tuple[list[str], str]]:
    chance, made = random.Random(count), []
    while len(made) < count:
        case = bad_override(chance)
        if not valid(case[0]):
            made.append(case)
    return made


@pytest.mark.parametrize("count", [80, pytest.param(2000, marks=LONG)])
def test_a_bad_override_is_one_line_that_names_the_key_and_nothing_is_made(
    count, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for arguments, key in cases(count):
        code = enter("train", train.run, [*arguments])
        said = capsys.readouterr()
        assert code == 2, arguments
        (line,) = said.err.splitlines()
        assert line.startswith("error: "), arguments
        assert key in line, (arguments, line)
        assert len(line) < 400
        assert said.out == ""
        assert os.listdir() == [], arguments


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=LONG)])
def test_the_same_from_processes(count, nursery, tmp_path):
    for index, (arguments, key) in enumerate(cases(count)):
        cwd = tmp_path / str(index)
        cwd.mkdir()
        assert nursery.run(arguments, cwd) == 2, arguments
        (line,) = (cwd / "out.txt").read_text().splitlines()
        assert key in line
        assert os.listdir(cwd) == ["out.txt"]


TOUCH = "open('canary','w')"
CALLS = [
    *("os.system", "builtins.exec", "builtins.eval", "subprocess.run", "logging.os.system"),
    *("pathlib.Path.touch", "builtins.open", "torch.load", "hydra.utils.instantiate"),
]
SPOTS = ["agent", "env", "env.kwargs", "log", "eval", "checkpoint", "hydra", "hydra.job_logging"]


def command_lines() -> list[list[str]]:
    """Attempts to have something called from the command line."""
    found = []
    for call in CALLS:
        for spot in SPOTS:
            found.append([f"{spot}._target_={call}", f"{spot}._args_=[canary]"])
            found.append([f"+{spot}.x={{_target_: {call}, _args_: [canary]}}"])
    for call in CALLS:
        found.append([f"hydra.job_logging.handlers.x.()={call}"])
        found.append([f"env.kwargs={{_target_: {call}, _args_: [canary]}}"])
        found.append([f"env.kwargs.a={{_target_: {call}, _args_: [canary]}}", "env.id=Pendulum-v1"])
    found += [["--config-dir=evil"], ["--config-path=evil"], ["-cd", "evil"], ["-m", "x=1"]]
    found += [["hydra/launcher=evil"], ["hydra.searchpath=[file://evil]"], ["+evil=evil"]]
    found += [
        ["hydra.callbacks.x._target_=os.system"],
        ["experiment=../evil"],
        ["agent=../../evil"],
    ]
    return found


YAML = [
    f'!!python/object/apply:builtins.exec ["{TOUCH}"]',
    f'seed: !!python/object/apply:builtins.exec ["{TOUCH}"]',
    f'seed: !!python/object/new:type {{args: [x, !!python/tuple [], {{}}], state: "{TOUCH}"}}',
    "_target_: os.system",
    f'agent: {{_target_: builtins.exec, _args_: ["{TOUCH}"]}}',
    f'seed: ${{eval:"{TOUCH}"}}',
    "seed: ${oc.env:HOME}",
    "env: {id: 'evil_module:Evil-v0'}",
    "&a [*a, *a]",
    "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]",
]


PICKLE = b"c__builtin__\nopen\n(S'canary'\nS'w'\ntR."  # whoever loads it makes the canary


def test_the_payloads_are_alive(tmp_path):
    """The negative control: what would execute them does."""
    (tmp_path / "payload").write_bytes(PICKLE)
    for arguments in (["-m", "pickle", "payload"], ["-c", TOUCH]):
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, check=False)
        (tmp_path / CANARY).unlink()


def files() -> list[tuple[str, bytes]]:
    """(file of a checkpoint, what it is replaced by)."""
    import io
    import zipfile

    import torch

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("../../canary", "x")
    torch_file = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, torch_file)
    header = (10**9).to_bytes(8, "little") + b"{}"
    contents = [PICKLE, archive.getvalue(), torch_file.getvalue(), header]
    contents += [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000]
    contents += [b'{"format": 2, "step": "../../canary", "files": {}}', b"1" * 5000]
    names = ("state.safetensors", "state.json", "manifest.json")
    return [(name, content) for name in names for content in contents]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert enter("train", train.run, [*TINY, f"run_dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_no_payload_is_executed(run, tmp_path, monkeypatch, capsys):
    """More than 200: on the command line, in config.yaml, and in every file of a checkpoint."""
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "evil.yaml").write_text("_target_: os.system\n_args_: ['touch canary']\n")
    (tmp_path / "evil_module.py").write_text(TOUCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    before, tried = sorted(os.listdir()), 0
    for arguments in command_lines():
        capsys.readouterr()
        code = enter("train", train.run, arguments)
        assert code == 2, arguments
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert sorted(os.listdir()) == before, arguments
        tried += 1
    for text in YAML:
        copy = Path("copy")
        shutil.copytree(run, copy)
        (copy / "config.yaml").write_text(text)
        for name, door in (("evaluate", evaluate.run), ("train", train.run)):
            key = "run" if name == "evaluate" else "resume"
            assert enter(name, door, [f"{key}={copy}"]) == 2, text
            assert len(capsys.readouterr().err.splitlines()) == 1
            tried += 1
        shutil.rmtree(copy)
        assert sorted(os.listdir()) == before, text
    for name, content in files():
        copy = Path("copy")
        shutil.copytree(run, copy)
        for step in checkpoint.names(copy):
            (copy / "checkpoints" / step / name).write_bytes(content)
        assert enter("evaluate", evaluate.run, [f"run={copy}"]) == 4, (name, content[:50])
        assert len(capsys.readouterr().err.splitlines()) == 1
        shutil.rmtree(copy)
        assert sorted(os.listdir()) == before, name
        tried += 1
    print(f"{tried} payloads, 0 executed")
    assert tried >= 200


def test_a_sealed_checkpoint_of_another_shape_is_refused(run, tmp_path, capsys):
    """Right hashes, wrong content: other shapes, weights that are not finite, absurd numbers."""
    import torch

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    newest = copy / "checkpoints" / checkpoint.names(copy)[-1]
    state = checkpoint.load(newest)
    modules = state["agent"]["modules"]
    name = next(iter(modules["actor"]))
    holes = {**modules["actor"], name: torch.full_like(modules["actor"][name], torch.nan)}
    for change in (
        {"agent": 3},
        {"agent": {}},
        {"agent": {"modules": {"actor": torch.ones(2)}}},
        {"agent": {**state["agent"], "modules": {**modules, "actor": holes}}},
    ):
        shutil.rmtree(newest)
        checkpoint.save(copy, int(newest.name[5:]), {**state, **change}, keep=9)
        capsys.readouterr()
        assert enter("evaluate", evaluate.run, [f"run={copy}"]) == 4
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert enter("train", train.run, [f"resume={copy}", "total_steps=128"]) == 4
    assert json.loads((newest / "manifest.json").read_text())["format"] == 2
    for change in (
        {"wall_seconds": "x"},
        {"return_mean": 10**400},
        {"config": {}},
        {"setting": 3},
        {"chores": {"updates": 1}},
        {"segments": {"a": 1}},
        {"envs": {"obs": 1}},
    ):
        shutil.rmtree(copy)
        shutil.copytree(run, copy)
        shutil.rmtree(newest)
        checkpoint.save(copy, int(newest.name[5:]), {**state, **change}, keep=9)
        (copy / "result.json").unlink()
        capsys.readouterr()
        code = enter("train", train.run, [f"resume={copy}", "total_steps=128"])
        said = capsys.readouterr().err
        harmless = "return_mean" in change or "segments" in change  # those of the manifest are read
        assert code == (0 if harmless else 4), (change, said)
        assert said.count("error: ") == (not harmless)
        assert "Traceback" not in said
        assert enter("evaluate", evaluate.run, [f"run={copy}", "checkpoint=best"]) in (0, 2, 4)


def test_a_few_lines_that_stand_for_billions_are_not_read(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    (copy / "config.yaml").write_text("\n".join(lines) + "\n")
    assert enter("evaluate", evaluate.run, [f"run={copy}"]) == 2
    assert "config.yaml cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
def test_a_pipe_is_not_waited_for(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("result.json", "config.yaml"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
        code = enter("train", train.run, [f"resume={copy}", "total_steps=128"])
        assert code == (0 if name == "result.json" else 2)


def test_a_file_larger_than_memory_is_not_read(run, tmp_path):
    """A sparse one costs nothing to make, and its manifest says that it is right."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    *others, newest = (copy / "checkpoints" / name for name in checkpoint.names(copy))
    for path in others:
        shutil.rmtree(path)
    os.truncate(newest / "state.safetensors", 1 << 40)
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"]["state.safetensors"]["size"] = 1 << 40
    manifest["sha256"] = seal_of(manifest)
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageFault, match=r"takes 2,097,152\.0 MiB of memory and .*; free"):
        checkpoint.load_newest(copy)


@pytest.mark.parametrize(
    ("run_dir", "code"),
    [
        ("x" * 300, 2),
        ("/proc/nowhere/run", 2),
        ("file/run", 2),
        ("ein Ort \u00fcber \u6f22\u5b57/run", 0),
    ],
)
def test_a_run_goes_where_it_is_told_or_says_why_not(run_dir, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    small = ["total_steps=640", "eval.episodes=1", "agent.hidden=[8]"]
    assert enter("train", train.run, [*small, f"run_dir={quoted(run_dir)}"]) == code
    errors = capsys.readouterr().err
    if code:
        assert errors.startswith("error: run_dir: ")
        assert errors.count("\n") == 1
    else:
        assert (Path(run_dir) / "result.json").is_file()


def test_a_replay_that_does_not_fit_is_refused_before_anything_is_taken(tmp_path):
    """With less than 500 MB in use, by a process that may have 8 GB; CUDA's libraries are extra."""
    limited = (  # a process of its own between: memory of the one that forks counts, too
        "import resource, subprocess, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(code)"
    )
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", limited, str(Path(train.__file__)), "env=pendulum", "agent=sac",
         "agent.buffer_size=999999999"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    said = process.stderr
    seconds, peak = time.perf_counter() - began, int(process.stdout.split()[-1]) / 1024
    assert process.returncode == 2
    assert said.startswith("error: agent.buffer_size: 999,999,999 transitions need")
    assert "at most" in said
    assert peak < (500 if torch.version.cuda is None else 800)
    assert os.listdir(tmp_path) == []
    print(f"refused in {seconds:.2f} s, with {peak:.0f} MiB")
