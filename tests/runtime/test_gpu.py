"""On a GPU an update is the same update, captured or not, and nothing in it waits for the host.

Run where there is one: `make test ARGS=tests/runtime/test_gpu.py`.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.tree import digest
from data import Replay, Spec, Transition
from runtime.accelerate.acceleration import accelerate
from runtime.divergence import Recorded
from tests.helpers import (
    agent,
    assert_commits_nothing_once_not_finite,
    assert_reads_rows,
    assert_repeats_and_resumes,
    assert_told_the_same,
    batch,
    numbers,
    saved_and_read,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

ROOT = Path(__file__).parent.parent.parent
CONTINUOUS, DISCRETE = Spec(3, 2, discrete=False), Spec(3, 2, discrete=True)
PICTURE = Spec(3, 2, discrete=False, images=((0, (1, 3, 1)),), pixels=True)
AMONG = Spec(4, 2, discrete=False, images=((0, (1, 3, 1)),), bytes=((0, 3),))
SEVERAL = Spec(3, 3, discrete=True, choices=(2, 3))
KINDS = {
    "sac": ("sac", CONTINUOUS, {"policy_delay": 2, "normalise_obs": True, "max_grad_norm": 1.0}),
    "sac of pictures": ("sac", PICTURE, {}),
    "sac of pictures among numbers": ("sac", AMONG, {"normalise_obs": True}),
    "sac, full covariance": ("sac", CONTINUOUS, {"policy": "tanh_full_gaussian"}),
    "sac of distributions": ("sac", CONTINUOUS, {"atoms": 11}),
    "sac_discrete": ("sac_discrete", DISCRETE, {"normalise_obs": True}),
    "ppo": ("ppo", CONTINUOUS, {"policy": "tanh_gaussian", "batch_size": 6, "epochs": 3,
                                "lr_schedule": "linear", "clip_schedule": "linear"}),
    "a2c": ("a2c", DISCRETE, {"normalise_obs": True, "lr_schedule": "linear"}),
    "a2c, shared torso": ("a2c", CONTINUOUS, {"policy": "tanh_gaussian", "shared_torso": True,
                                              "ent_coef": 0.01}),
    "a2c of several choices": ("a2c", SEVERAL, {}),
}  # fmt: skip


def learner(kind, device="cuda", mode="none"):
    """(agent, its batch, observations) on the device."""
    name, spec, changes = KINDS[kind]
    made = agent(name, spec, device=device, **changes)
    data = batch(4, 3, spec=spec) if made.settings.on_policy else batch(8, spec=spec)
    if spec.choices:
        action = torch.stack([torch.randint(size, (4, 3)) for size in spec.choices], -1)
        data = data._replace(action=action, latent=action)
    if not made.settings.on_policy:
        data = data._replace(latent=None)
    data = Transition(*(None if field is None else field.to(device) for field in data))
    obs = data.obs.flatten(0, -2)[:3].cpu()
    if mode != "none":
        accelerate(made, mode, data, obs)
    return made, data, obs


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_update_equals_the_plain_one(kind):
    fast, data, obs = learner(kind, mode="cudagraph")
    slow, _, _ = learner(kind)
    first = numbers(slow.state_dict()["modules"])
    assert digest(fast.state_dict()) == digest(slow.state_dict())  # capturing left no trace
    for _ in range(6):
        told, expected = fast.update(data), slow.update(data)
        assert_told_the_same(told, expected)
        for drawn, wanted in zip(fast.act(obs), slow.act(obs), strict=True):
            assert torch.allclose(drawn, wanted, rtol=1e-4, atol=1e-5)
    ours, theirs = fast.state_dict(), slow.state_dict()
    assert torch.allclose(numbers(ours["modules"]), numbers(theirs["modules"]), 1e-4, 1e-5)
    assert digest(ours["generators"]) == digest(theirs["generators"])
    assert (numbers(ours["modules"]) - first).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_the_gpu_is_the_one_on_the_processor(kind):
    here, data, _ = learner(kind, "cpu")
    there, moved, _ = learner(kind)
    assert digest(here.state_dict()["modules"]) == digest(there.state_dict()["modules"])
    there.update(moved)
    there.load_state_dict({**saved_and_read(here.state_dict()),
                           "generators": there.state_dict()["generators"]})  # fmt: skip
    here.step = Recorded(here.step)
    here.update(data)
    given = here.step.arguments
    here, _, _ = learner(kind, "cpu")
    for _ in range(3):
        expected = here.step(*given)
        told = there.step(*map(to_gpu, given))
    for name, value in expected.items():
        assert torch.allclose(told[name].cpu(), value, rtol=1e-3, atol=1e-4, equal_nan=True), name
    ours, theirs = numbers(there.state_dict()["modules"]), numbers(here.state_dict()["modules"])
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def to_gpu(argument):
    if isinstance(argument, Transition):
        return Transition(*(None if field is None else field.cuda() for field in argument))
    return argument.cuda() if isinstance(argument, torch.Tensor) else argument


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["none", "cudagraph"])
def test_it_repeats_and_resumes_bit_for_bit(kind, mode):
    made, data, _ = learner(kind, mode=mode)
    fresh = saved_and_read(learner(kind)[0].state_dict())
    assert_repeats_and_resumes(made, learner(kind, mode=mode)[0], fresh, data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_update_commits_nothing_once_it_is_not_finite(kind):
    made, data, _ = learner(kind, mode="cudagraph")
    assert_commits_nothing_once_not_finite(made, data)


@pytest.fixture
def no_waiting():
    """A wait for the GPU is an error from `torch.cuda.set_sync_debug_mode("error")` on."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_the_guard_against_waiting_sees_a_wait(no_waiting):
    value = torch.ones(3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        value.sum().item()


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_never_waits_for_the_gpu(kind, no_waiting):
    made, data, _ = learner(kind, mode="cudagraph")
    made.update(data)
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(3):
        made.update(data)


def test_a_sample_never_waits_for_the_gpu(no_waiting):
    generator = torch.Generator("cuda").manual_seed(0)
    replay = Replay(16, 8, 4, 1.0, generator)
    rows = batch(3)
    for _ in range(7):  # beyond its end
        replay.add(rows)
    torch.cuda.set_sync_debug_mode("error")
    assert replay.sample().read().obs.shape == (8, 3)


def test_a_captured_update_reads_its_rows_from_the_replay():
    slow, fast = (agent("sac", CONTINUOUS, device="cuda") for _ in range(2))
    replay = Replay(64, 8, 1, 1.0, torch.Generator("cuda").manual_seed(0))
    data = Transition(*(None if f is None else f.cuda() for f in batch(8)._replace(latent=None)))
    accelerate(fast, "cudagraph", replay.example(data, 2), torch.zeros(3, 3))
    assert_reads_rows(fast, slow, replay, CONTINUOUS)


def train(folder, *overrides):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides], cwd=folder, capture_output=True,
        text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


RUNS = {
    "sac": ["env=pendulum", "agent=sac", "agent.learning_starts=50", "total_steps=500"],
    "sac_discrete": ["env=cartpole", "agent=sac_discrete", "agent.learning_starts=50",
                     "total_steps=500"],
    "ppo": ["env=pendulum", "agent=ppo", "agent.n_steps=32", "total_steps=1000"],
    "a2c": ["env=cartpole", "agent=a2c", "total_steps=5000"],
}  # fmt: skip


@pytest.mark.parametrize("mode", ["none", "cudagraph"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_bit_for_bit(name, mode, tmp_path):
    overrides = [*RUNS[name], "device=cuda", f"accelerate={mode}", "eval.episodes=2"]
    code, said = train(tmp_path, *overrides, "run_dir=whole")
    assert code == 0, said
    steps = int(overrides[-4].partition("=")[2])
    half = [f"checkpoint.every={steps // 2}", "checkpoint.keep=100", "run_dir=half"]
    code, said = train(tmp_path, *overrides, *half)
    assert code == 0, said
    saves = sorted((tmp_path / "half" / "checkpoints").glob("step-*"))
    late = [save for save in saves if int(save.name.removeprefix("step-")) > steps // 2]
    assert 0 < len(late) < len(saves)
    for save in late:
        shutil.rmtree(save)
    (tmp_path / "half" / "result.json").unlink()
    code, said = train(tmp_path, "resume=half")
    assert code == 0, said
    assert "may differ" not in said
    results = [json.loads((tmp_path / name / "result.json").read_text())
               for name in ("whole", "half")]  # fmt: skip
    assert results[0]["state_digest"] == results[1]["state_digest"]
    assert all(result["exact"] for result in results)


@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_upon_another_device_and_says_so(devices, tmp_path):
    first, second = devices
    code, said = train(tmp_path, *RUNS["sac"], f"device={first}", "run_dir=run")
    assert code == 0, said
    code, said = train(tmp_path, "resume=run", f"device={second}", "total_steps=600")
    assert code == 0, said
    assert f"device was {first}, is {second}" in said
    assert not json.loads((tmp_path / "run" / "result.json").read_text())["exact"]


def test_a_replay_larger_than_the_gpu_is_refused(tmp_path):
    huge = ["env.id=tests.helpers:Picture-v0", "env.kwargs.discrete=false",
            "env.kwargs.shape=[64,64,3]"]  # fmt: skip
    code, said = train(tmp_path, *huge, "agent=sac", "device=cuda", "agent.buffer_size=1000000000")
    assert code == 2, said
    assert said.count("\n") == 1, said
    assert "the GPU leaves" in said


def test_a_diverging_run_stops_with_evidence(tmp_path):
    code, said = train(tmp_path, *RUNS["sac"], "device=cuda", "agent.lr=10", "run_dir=run")
    assert code == 5, said
    assert (tmp_path / "run" / "divergence" / "repeat.py").exists()
    done = subprocess.run([sys.executable, "run/divergence/repeat.py"], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nan" in done.stdout or "inf" in done.stdout
