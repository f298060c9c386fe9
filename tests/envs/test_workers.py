"""A worker that hangs, stops or dies costs its deadline, names itself, and leaves nobody behind."""

import multiprocessing.forkserver
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from common.errors import ConfigError, EnvironmentFault
from envs import worker
from envs.envs import Envs
from envs.workers import ROOT
from tests.helpers import evaluator_of

DEADLINE = 1.0
CULPRIT = 1  # of three copies


class Faulty(gymnasium.Env):
    """Copy number 1 does what it is told to, at its third step or its second reset."""

    def __init__(self, fault="none", where="step"):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.fault, self.where, self.count, self.episode = fault, where, 0, -1
        if where == "make" and multiprocessing.parent_process() is not None:
            self.act()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.culprit = seed is not None and seed % 3 == 0
        self.episode, self.count = self.episode + 1, 0
        if self.where == "reset" and self.episode == 1:
            self.act()
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        if self.where == "step" and self.count == 3 and action[0] > 0.5:
            self.act()
        return np.zeros(2, np.float32), 0.0, self.count == 5, False, {}

    def act(self):
        match self.fault:
            case "sleep":
                time.sleep(1000)
            case "spin":
                while True:
                    pass
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hold":
                re.match("(a+)+$", "a" * 60 + "b")
            case "exit":
                sys.exit(0)
            case "leave":
                os._exit(7)
            case "talk":
                print("x" * 10_000_000, flush=True)
                raise ValueError("out of breath")
            case "raise":
                raise ValueError("out of tune")


gymnasium.register("Faulty-v0", entry_point=Faulty)

EXPECTED = {
    "sleep": "the worker of environment 1 has not answered for 1 s",
    "spin": "the worker of environment 1 has not answered for 1 s",
    "stop": "the worker of environment 1 has not answered for 1 s",
    "kill": "the worker of environment 1 has ended with code -9",
    "leave": "the worker of environment 1 has ended with code 7",
    "exit": "step raised SystemExit: 0 in environment 1",
    "talk": "step raised ValueError: out of breath in environment 1",
    "raise": "step raised ValueError: out of tune in environment 1",
}


def children():
    """What the fork server of this process has started and not ended."""
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    with open(f"/proc/{server}/task/{server}/children") as file:
        return file.read().split()


def step(envs):
    """One step in which only the culprit is told to misbehave."""
    action = torch.zeros(3, 1)
    action[CULPRIT] = 1.0
    return envs.step(action, action)


@pytest.mark.skipif(sys.platform == "win32", reason="signals and /proc")
@pytest.mark.parametrize("fault", EXPECTED)
def test_a_worker_that_misbehaves_ends_the_run_in_time_and_by_name(fault, capfd):
    envs = Envs("tests.envs.test_workers:Faulty-v0", 3, "async", {"fault": fault}, 0, DEADLINE)
    workers = [process.pid for process in envs.backend.envs.processes]
    step(envs)
    step(envs)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as caught:
        step(envs)
    assert EXPECTED[fault] in str(caught.value)
    assert "Faulty-v0" in str(caught.value)
    envs.close()
    envs.close()
    assert time.monotonic() - began < DEADLINE + 2.5
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    assert children() == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("fault", ["sleep", "kill"])
def test_a_reset_is_waited_for_no_longer_than_a_step(fault):
    kwargs = {"fault": fault, "where": "reset"}
    envs = Envs("tests.envs.test_workers:Faulty-v0", 2, "async", kwargs, 0, DEADLINE)
    began = time.monotonic()
    for _ in range(4):
        envs.step(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(EnvironmentFault, match="the worker of environment 0 has"):
        envs.step(torch.zeros(2, 1), torch.zeros(2, 1))
    envs.close()
    assert time.monotonic() - began < DEADLINE + 2.5


@pytest.mark.parametrize(
    ("fault", "deadline", "words"),
    [("sleep", 1.0, "has not answered for 1 s, at its step 0"),
     ("leave", 20.0, "has ended with code 7")],
)  # fmt: skip
def test_a_worker_that_cannot_make_its_environment_keeps_nobody_waiting(
    fault, deadline, words, monkeypatch
):
    monkeypatch.setattr("envs.deadline.MAKING", 0.0)
    kwargs = {"fault": fault, "where": "make"}
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match=f"the worker of environment 0 {words}"):
        Envs("tests.envs.test_workers:Faulty-v0", 2, "async", kwargs, 0, deadline)
    assert time.monotonic() - began < deadline + 10.0
    assert children() == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="a timer of the system's")
@pytest.mark.parametrize("make", [
    lambda: Envs("tests.envs.test_workers:Absent-v0", 2, "async", {}, 0, 0.5),
    lambda: evaluator_of("tests.envs.test_workers:Absent-v0", "async", {}, 1, 0, timeout=0.5),
])  # fmt: skip
def test_what_hangs_while_it_is_made_in_this_process_keeps_nobody_waiting(make, monkeypatch):
    monkeypatch.setattr("envs.deadline.MAKING", 0.0)
    monkeypatch.setattr("runtime.evaluation.MAKING", 0.0)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="s while it was made"):
        make()
    assert time.monotonic() - began < DEADLINE + 10.0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="a timer of the system's")
def test_what_hangs_in_close_ends_with_a_warning(capsys):
    evaluator = evaluator_of("tests.envs.test_workers:Staying-v0", "async", {}, 1, 0, timeout=0.5)
    began = time.monotonic()
    evaluator.close()
    assert time.monotonic() - began < DEADLINE + 10.0
    assert "has not answered for 0.5 s in close" in capsys.readouterr().err


class Staying(Faulty):
    """Waits for its end."""

    def close(self):
        time.sleep(1000)


gymnasium.register("Staying-v0", entry_point=Staying)


class Absent(gymnasium.Env):
    """Waits for a simulator that is not there."""

    def __init__(self):
        time.sleep(1000)


gymnasium.register("Absent-v0", entry_point=Absent)


PARENT = """
import threading
from envs.envs import Envs
from tests.envs.test_workers import step

def play(envs):
    for _ in range(3):
        step(envs)

if __name__ == "__main__":
    name = "tests.envs.test_workers:Faulty-v0"
    both = [Envs(name, 3, "async", {"fault": fault}, 0, 60.0) for fault in ("stop", "hold")]
    print(*[process.pid for envs in both for process in envs.backend.envs.processes], flush=True)
    for envs in both:
        threading.Thread(target=play, args=(envs,)).start()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_no_worker_outlives_its_parent_whatever_it_does(tmp_path):
    """Stopped, or in C code that lets no other thread look whether the parent is there."""
    (tmp_path / "parent.py").write_text(PARENT)
    process = subprocess.Popen([sys.executable, tmp_path / "parent.py"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    workers = process.stdout.readline().split()
    assert len(workers) == 6
    time.sleep(1.0)  # until they do it
    assert process.poll() is None
    process.kill()
    process.wait()
    end = time.monotonic() + 5.0
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


class Legacy(gymnasium.Env):
    """Draws from the global generators, as old environments do."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.array([np.random.random(), random.random()]), {}  # noqa: NPY002

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


gymnasium.register("Legacy-v0", entry_point=Legacy)


def test_global_generators_differ_from_worker_to_worker():
    envs = Envs("tests.envs.test_workers:Legacy-v0", 4, "async", {}, 0, 20.0)
    try:
        assert all(len(np.unique(column)) == 4 for column in envs.obs.T)
    finally:
        envs.close()


SERVED = """
import multiprocessing.forkserver, multiprocessing.resource_tracker
from envs.envs import Envs

if __name__ == "__main__":
    envs = Envs("CartPole-v1", 2, "async", {}, 0, 20.0)
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    tracker = multiprocessing.resource_tracker._resource_tracker._pid
    for pid in (server, tracker, *(process.pid for process in envs.backend.envs.processes)):
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":\\t", 1) for line in file)
        print(int(status["SigBlk"], 16) | int(status["SigIgn"], 16))
    envs.close()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
def test_whoever_serves_never_hears_a_signal_to_the_group(tmp_path):
    """Not even while its modules are loaded, nor between its birth and its first line.

    In a process of its own: of this one, any test may have started who tracks its resources.
    """
    (tmp_path / "served.py").write_text(SERVED)
    done = subprocess.run([sys.executable, tmp_path / "served.py"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)  # fmt: skip
    deaf = [int(line) for line in done.stdout.split()]
    assert len(deaf) == 4
    for signals in deaf:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            assert signals >> (number - 1) & 1


LOADING = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from envs import workers
sys.path.insert(0, sys.argv[2])
os.environ["PYTHONPATH"] = sys.argv[2]
for at_once in (True, False):
    if os.fork() == 0:  # a parent, which ends at once, or as soon as its server loads
        workers.start_server()
        print(workers.multiprocessing.forkserver._forkserver._forkserver_pid, flush=True)
        while not (at_once or os.path.exists(f"{sys.argv[2]}/{os.getpid()}")):
            time.sleep(0.01)
        os._exit(9)
os.wait(), os.wait()
"""
WAITS = """
import os, pathlib, time
(pathlib.Path(__file__).parent / str(os.getppid())).touch()
time.sleep(60)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
def test_who_serves_the_workers_ends_with_their_parent_even_while_it_loads(tmp_path):
    (tmp_path / "gymnasium.py").write_text(WAITS)
    command = [sys.executable, "-c", LOADING, str(ROOT), str(tmp_path)]
    parents = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    servers = [Path("/proc") / parents.stdout.readline().strip() for _ in range(2)]
    assert all(server.name.isdigit() for server in servers)
    parents.wait()
    until = time.monotonic() + 5.0
    while any(server.exists() for server in servers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(server.exists() for server in servers)
    parents.stdout.close()


WITHDRAWN = """
import _multiprocessing, multiprocessing, os
from envs import workers

if __name__ == "__main__":
    workers.start_server()
    context = multiprocessing.get_context("forkserver")
    lock = context.Lock()
    _multiprocessing.sem_unlink(lock._semlock.name)
    process = context.Process(target=print, args=(lock,))
    process.start()
    process.join()
    print(process.exitcode, flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the fork server's")
def test_a_worker_whose_parent_ends_while_it_begins_says_nothing(tmp_path):
    """What it is to be made of is gone; all else that it dies of is shown."""
    (tmp_path / "withdrawn.py").write_text(WITHDRAWN)
    done = subprocess.run([sys.executable, tmp_path / "withdrawn.py"], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout == "1\n"
    assert "Traceback" not in done.stderr


def test_a_worker_shows_what_else_it_dies_of(tmp_path, capsys):
    for wrong in ((tmp_path / "absent").read_text, lambda: [][0]):
        with pytest.raises((OSError, IndexError)) as caught:
            wrong()
        worker.show(caught.type, caught.value, caught.tb)
        assert "Traceback" in capsys.readouterr().err


def test_workers_that_nobody_closes_keep_no_program_from_ending(tmp_path):
    """As where a signal comes while they are begun: Python waits for them at the end."""
    program = "from envs.envs import Envs\nenvs = Envs('CartPole-v1', 2, 'async', {}, 0)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                           text=True, timeout=60)  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


class Various(Faulty):
    """Each copy that a worker makes has a space of its own."""

    def __init__(self):
        super().__init__()
        if multiprocessing.parent_process() is not None:
            self.observation_space = gymnasium.spaces.Box(-1, os.getpid(), (2,), np.float32)


gymnasium.register("Various-v0", entry_point=Various)


def test_copies_with_other_spaces_are_refused():
    why = "could not be made, RuntimeError: environment 0 has other spaces than the first one made"
    with pytest.raises(EnvironmentFault, match=why):
        Envs("tests.envs.test_workers:Various-v0", 2, "async", {}, 0, 20.0)
    assert children() == []


class Simulator(Faulty):
    """Starts programs of its own, in a group of their own, and ends its episode with them."""

    def step(self, action):
        program = subprocess.Popen(["sleep", "0.5"], preexec_fn=os.setsid)
        pid = os.fork()
        if pid == 0:
            time.sleep(0.5)
            os._exit(0)
        code = os.waitpid(pid, 0)[1]
        return np.zeros(2, np.float32), float(program.wait() or code), True, False, {}


gymnasium.register("Simulator-v0", entry_point=Simulator)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_what_an_environment_starts_is_left_alone():
    """Only workers end with the process that they are forked from."""
    envs = Envs("tests.envs.test_workers:Simulator-v0", 1, "async", {}, 0, 20.0)
    try:
        assert envs.step(torch.zeros(1, 1), torch.zeros(1, 1)).reward == 0.0
    finally:
        envs.close()


def test_the_other_copies_go_on_where_one_raises_an_error_of_this_project():
    """Such as of a policy that plays against it; its worker goes on, too."""
    envs = Envs("tests.envs.test_workers:Refusing-v0", 2, "async", {}, 0, 20.0)
    action = torch.tensor([[0.0], [1.0]])
    try:
        with pytest.raises(ConfigError, match=r"^run: it is not there; give another$"):
            envs.step(action, action)
        assert envs.step(0 * action, action).reward.tolist() == [0.0, 0.0]
    finally:
        envs.close()


class Refusing(Faulty):
    def step(self, action):
        if action[0] > 0.5:
            raise ConfigError("run: it is not there; give another")
        return super().step(action)


gymnasium.register("Refusing-v0", entry_point=Refusing)


def test_workers_that_behave_close_by_themselves():
    envs = Envs("tests.envs.test_workers:Faulty-v0", 2, "async", {}, 0, DEADLINE)
    for _ in range(12):
        envs.step(torch.zeros(2, 1), torch.zeros(2, 1))
    processes = envs.backend.envs.processes
    envs.close()
    assert [process.exitcode for process in processes] == [0, 0]
