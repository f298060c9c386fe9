"""Two processes that learn together are one with both their batches, to rounding."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from agents.optimizer import Peers
from common.errors import ConfigError
from common.tree import pack, unpack
from configs.compose import train_config
from data import Spec, Transition
from runtime import memory
from runtime.build import make_parts
from runtime.launch.ranks import Ranks, meet, require_devices
from tests.helpers import agent, batch

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
UPDATES = 3
SPECS = {
    "a2c": Spec(3, 2, discrete=False),
    "ppo": Spec(3, 2, discrete=False),
    "sac": Spec(3, 2, discrete=False),
    "sac atoms": Spec(3, 2, discrete=False),
    "sac_discrete": Spec(3, 4, discrete=True),
}
SETTINGS = {
    "a2c": {"normalise_advantage": True, "max_grad_norm": 0.1, "reward_scale": "auto"},
    "ppo": {"reward_scale": "auto", "epochs": 1, "batch_size": 40, "target_kl": 10.0},
    "sac": {"max_grad_norm": 0.5, "reward_scale": "auto"},
    "sac atoms": {"atoms": 11},
    "sac_discrete": {},
}


def learned(name, ranks, part):
    """The agent after a few updates on this part of every batch: `part` takes rows of (B, ·)."""
    learner = agent(name.split()[0], SPECS[name], normalise_obs=True, **SETTINGS[name])
    learner.optimizer.ranks = ranks
    for number in range(UPDATES):
        if learner.settings.on_policy:
            whole = batch(5, 16, spec=SPECS[name], seed=number)
            rows = Transition(*(part(field.transpose(0, 1)).transpose(0, 1) for field in whole))
        else:
            rows = Transition(*(part(f) for f in batch(32, spec=SPECS[name], seed=number)[:6]))
        learner.observe(rows)
        if learner.settings.on_policy:
            learner.learn_statistics(rows.obs)
            learner.begin_update(rows)
        else:
            learner.optimizer.begin_update()
        if name == "ppo":
            advantage, target, log_prob = learner.evaluate_rollout(rows)
            fields = (rows.obs, rows.action, rows.latent, advantage, target, log_prob)
            given = [field.flatten(0, 1) for field in fields]
        elif name.startswith("sac") and name != "sac_discrete":
            noise = torch.randn(32, 2, 2, generator=torch.Generator().manual_seed(number))
            given = [rows, part(noise).transpose(0, 1).contiguous(), True]
        elif name == "sac_discrete":
            learner.update(rows)
            continue
        else:
            given = [rows]
        learner.step(*given)
    state = learner.state_dict()
    return {"modules": state["modules"], "diverged": state["optimizer"]["diverged"]}


class Deaf(Ranks):
    """Two processes that do not hear each other."""

    def average(self, tensors):
        return list(tensors)


def one_of_two(rank, port, names, folder):
    """A process: its half of every batch, and what came of it, heard or not, in files."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                   "WORLD_SIZE": "2"}  # fmt: skip
    ranks = meet("cpu")
    for kind, heard in (("ranks", ranks), ("deaf", Deaf(rank, 2))):
        for name in names:
            found = learned(name, heard, lambda rows: rows.chunk(2)[rank])
            (Path(folder) / f"{kind}-{name}-{rank}").write_bytes(pack(found))
    said = ranks.collect(b"x" * (rank + 1))
    assert said == [b"x", b"xx"]
    assert ranks.most(5 - rank) == 5
    assert ranks.decided(lambda: {"rank": rank}) == {"rank": 0}
    assert ranks.gather(torch.full((2, 1), rank)).flatten().tolist() == [0, 0, 1, 1]
    require_shared_folder(ranks, Path(folder))
    (mean,) = ranks.average([torch.tensor([1.0, 3.0 * rank])])
    assert mean.tolist() == [1.0, 1.5]
    learner = agent("a2c", SPECS["a2c"])
    learner.optimizer.ranks = ranks
    weights = [p.clone() for p in learner.actor.parameters()]
    lost = torch.tensor(torch.inf if rank else 0.0)  # of rank 1, with a gradient that is fine
    loss = sum(p.sum() for p in learner.actor.parameters()) + lost
    value = sum(p.sum() for p in learner.critic.parameters())
    learner.optimizer.begin_update()
    learner.optimizer.minimise(lambda: ({"actor": loss, "critic": value}, {}))
    assert learner.optimizer.diverged
    assert all(map(torch.equal, weights, learner.actor.parameters()))
    torch.distributed.destroy_process_group()


def require_shared_folder(ranks, folder):
    """A run is found where both see it; where the second has another disk, both say so."""
    here = folder / f"machine-{ranks.rank}"
    for disk in (here, folder):
        (disk / "run").mkdir(parents=True, exist_ok=True)
        os.chdir(disk)
        assert ranks.found("run") is None
        if ranks.first:
            Path("run/config.yaml").touch()
        if disk == here:
            with pytest.raises(ConfigError, match="run is not there, and the first process has it"):
                ranks.found("run")
        else:
            assert ranks.found("run") == Path("run")


def two(names, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=one_of_two, args=(rank, port, names, str(folder)))
            for rank in range(2)]  # fmt: skip
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    return [{name: [unpack((folder / f"{kind}-{name}-{rank}").read_bytes()) for rank in range(2)]
             for name in names} for kind in ("ranks", "deaf")]  # fmt: skip


def gap(one, other):
    """The largest difference of a weight."""
    return max(
        float((tensor - other["modules"][module][key]).abs().max())
        for module, state in one["modules"].items()
        for key, tensor in state.items()
    )


def test_two_halves_are_the_whole_and_not_without_averaging(tmp_path):
    names = list(SPECS)
    together, apart = two(names, tmp_path)
    for name in names:
        whole = learned(name, Peers(), lambda rows: rows)
        first, second = together[name]
        assert gap(first, second) == 0.0  # bit for bit
        assert gap(whole, first) < 2e-6, name
        assert gap(whole, apart[name][0]) > 1e-4, name


def test_ranks_begin_with_the_same_weights_and_draw_their_own_numbers():
    settings = ["env=pendulum", "agent=sac", "agent.learning_starts=101", "total_steps=4001"]
    config = train_config([*settings, "env.num_envs=2", "agent.hidden=[8]", "accelerate=none"])
    alone, *both = (make_parts(config, ranks) for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2)))
    try:
        states = [parts.agent.state_dict() for parts in (alone, *both)]
        assert gap(states[0], states[1]) == gap(states[0], states[2]) == 0.0
        for one, other, equal in ((0, 1, True), (1, 2, False)):
            for name in ("act", "update"):
                drawn = [states[i]["generators"][name] for i in (one, other)]
                assert torch.equal(*drawn) is equal
            first, second = (alone, *both)[one], (alone, *both)[other]
            assert torch.equal(first.envs.obs, second.envs.obs) is equal
            seeds = [parts.buffer.generator.initial_seed() for parts in (first, second)]
            assert (seeds[0] == seeds[1]) is equal
        assert [parts.buffer.learning_starts for parts in both] == [51, 51]
        assert Ranks(1, 2).own(config).total_steps == 2000
    finally:
        for parts in (alone, *both):
            parts.close()


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    config = train_config(["env=pendulum", "agent=sac", "agent.hidden=[8]", "accelerate=none"])
    room = 1.7 * memory.bytes_for(config, Spec(3, 1, discrete=False), config.agent.buffer_size)
    monkeypatch.setattr(memory, "limits", lambda device: [("this machine", int(room))])
    make_parts(config, Ranks(0, 2, neighbours=1)).close()
    with pytest.raises(ConfigError, match="this machine leaves"):
        make_parts(config, Ranks(0, 2, neighbours=2))


def test_a_command_line_that_starts_as_many():
    assert Ranks().launcher == "python"
    assert Ranks(1, 2, 1, 2).launcher == "torchrun --standalone --nproc-per-node=2"
    assert Ranks(0, 4, 0, 2).launcher == "the same torchrun"  # it cannot know how they meet


def test_one_process_sends_nothing_to_anyone():
    ranks = Ranks()
    assert ranks.decided(lambda: (1, 2)) == (1, 2)
    assert ranks.collect(b"a") == [b"a"]
    assert ranks.most(7) == 7
    config = train_config(["env=pendulum", "agent=sac", "seed=3"])
    assert ranks.own(config) is config
    assert Ranks(0, 2).own(config).seed == 3 != Ranks(1, 2).own(config).seed


@pytest.mark.parametrize(
    ("device", "nccl", "gpus", "words"),
    [
        ("cpu", False, 0, None),
        ("cuda", True, 2, None),
        ("cuda", False, 2, "need NCCL"),
        ("cuda", True, 1, "2 processes need a GPU each, and this machine has 1;"),
        ("cuda:0", True, 2, "cannot be that of 2 processes"),
    ],
)
def test_each_process_needs_a_gpu_of_its_own(device, nccl, gpus, words, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if words is None:
        require_devices(device, 2)
    else:
        with pytest.raises(ConfigError, match=words):
            require_devices(device, 2)


class Second(gymnasium.Env):
    """Breaks where it runs on rank 1, or cannot be made there."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, made=True):
        if os.environ["RANK"] == "1" and not made:
            raise gymnasium.error.DependencyNotInstalled("it is not here")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if os.environ["RANK"] == "1":
            raise ValueError("out of order")
        return np.zeros(2, np.float32), 0.0, False, True, {}


gymnasium.register("Second-v0", entry_point=Second)


def torchrun(*arguments, size=2):
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    return [sys.executable, "-m", *launcher, str(TRAIN), *arguments, "resume=auto", "run_dir=run"]


SHORT = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8",
         "agent.learning_starts=50", "agent.normalise_obs=true", "total_steps=1000",
         "checkpoint.every=100", "eval.episodes=1", "eval.every=500",
         "env.num_envs=1"]  # fmt: skip

PPO = ["env=pendulum", "agent=ppo", "agent.hidden=[8]", "env.num_envs=2", "agent.n_steps=16",
       "agent.batch_size=8", "agent.target_kl=1e-4", "agent.normalise_obs=true", "eval.episodes=1",
       "total_steps=4096", "checkpoint.every=128", "eval.every=2048"]  # fmt: skip
JOBS = {  # what is run, the checkpoint after which it ends, its steps
    "sac": (SHORT, 300, 1000),
    # where it goes on, each rank holds an action of its own
    "held": ([*SHORT, "agent.learning_starts=600", "agent.explore_hold=90"], 300, 1000),
    "ppo": (PPO, 256, 4096),  # whose KL ends passes early, on all ranks at once
}


def outcome(folder):
    result = json.loads((folder / "run/result.json").read_text())
    return result["state_digest"], result["exact"], result["ranks"], result["steps"]


def processes_of(folder):
    """(pid, rank) of the processes that train there."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") != str(folder):
                continue
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found += [(int(path.name), int(v[5:])) for v in variables if v.startswith(b"RANK=")]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes there")
@pytest.mark.parametrize(
    ("end", "rank", "size", "job"),
    [
        *(("killed", 1, 2, "sac"), ("stopped", 1, 2, "sac"), ("killed", 0, 2, "sac")),
        *(("killed", 2, 3, "sac"), ("killed", 0, 3, "sac")),
        *(("killed", 1, 2, "held"), ("killed", 1, 2, "ppo")),
    ],
)
def test_a_job_whose_rank_ends_says_so_once_and_goes_on_bit_for_bit(end, rank, size, job, tmp_path):
    settings, after, steps = JOBS[job]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    command = torchrun(*settings, size=size)
    subprocess.run(command, cwd=whole, check=True, capture_output=True, timeout=120)
    begun = subprocess.Popen(command, cwd=broken, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (broken / f"run/checkpoints/step-{after:012d}").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    (chosen,) = [pid for pid, number in processes_of(broken) if number == rank]
    os.kill(chosen, signal.SIGKILL if end == "killed" else signal.SIGTERM)
    _, said = begun.communicate(timeout=120)
    assert begun.returncode != 0
    (line,) = [line for line in said.splitlines() if "error: " in line]
    assert ("has ended" if end == "killed" else "the run is saved") in line
    assert processes_of(broken) == []
    if end == "stopped":  # as it says
        told = line.partition("continue with torchrun ")[2].split()
        command = [sys.executable, "-m", "torch.distributed.run", *told]
        command[command.index("train.py")] = str(TRAIN)
    subprocess.run(command, cwd=broken, check=True, capture_output=True)
    assert outcome(broken) == outcome(whole)
    assert outcome(whole)[1:] == (True, size, -(-steps // size) * size)


@pytest.mark.slow
def test_a_run_of_two_processes_is_repeated_by_two(tmp_path):
    subprocess.run(torchrun(*SHORT), cwd=tmp_path, check=True, capture_output=True)
    again = [sys.executable, str(TRAIN.parent / "tools/reproduce.py"), "run=run", "run_dir=again"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "and the state at the end, to the last bit" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_two_machines_are_one_run(backend, tmp_path):
    """Two launchers that meet at an address, as on two machines, and end in the same weights."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    subprocess.run(torchrun(*SHORT), cwd=tmp_path, check=True, capture_output=True)
    expected = outcome(tmp_path)
    (tmp_path / "run").rename(tmp_path / "one")
    meets = {
        "static": lambda number: ["--master-addr=localhost", f"--master-port={port}",
                                  f"--node-rank={number}"],
        "c10d": lambda _: ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"],
    }  # fmt: skip
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
             *meets[backend](number),
             *torchrun(*SHORT)[5:]], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(2)
    ]  # fmt: skip
    said = [machine.communicate(timeout=120) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert outcome(tmp_path) == expected


@pytest.mark.slow
def test_other_processes_than_made_a_run_do_not_go_on_with_it(tmp_path):
    settings = ["env=cartpole", "total_steps=1280", "eval.episodes=1", "agent.hidden=[8]"]
    subprocess.run(torchrun(*settings), cwd=tmp_path, check=True, capture_output=True)
    alone = [sys.executable, str(TRAIN), "resume=run", "total_steps=2560"]
    done = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: ranks: 1 cannot continue the run of 2" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["env=cartpole", "agent.gamma=7"], "error: agent.gamma"),
        (["env=cartpole", "accelerate=compile"], "error: accelerate: compile makes one graph"),
        (["env.id=tests.runtime.test_ranks:Second-v0", "agent.hidden=[8]"], "error: rank 1: env"),
        (
            ["env.id=tests.runtime.test_ranks:Second-v0", "env.kwargs.made=false"],
            "error: rank 1: env.id: tests.runtime.test_ranks:Second-v0 needs a library that is",
        ),
    ],
)
def test_what_fails_is_told_once(arguments, words, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TRAIN.parent)}
    done = subprocess.run(torchrun(*arguments, "total_steps=1280"), cwd=tmp_path,
                          capture_output=True, text=True, env=environment)  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert line.startswith(words)
