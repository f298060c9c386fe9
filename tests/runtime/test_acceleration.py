"""Compiled whole, an update is the same update: equal to eager, repeatable, all or nothing."""

import copy
import shutil
from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from common.errors import ConfigError
from common.tree import digest
from configs import automatic
from configs.compose import train_config
from data import Replay, Spec
from runtime.accelerate import acceleration, captured
from runtime.accelerate.acceleration import accelerate
from runtime.accelerate.compiled import Compiled
from runtime.launch.ranks import ALONE
from runtime.session import announce
from tests.helpers import (
    agent,
    assert_commits_nothing_once_not_finite,
    assert_reads_rows,
    assert_repeats_and_resumes,
    assert_told_the_same,
    batch,
    masked,
    numbers,
    saved_and_read,
    tensors,
)

CONTINUOUS, DISCRETE = Spec(3, 2, discrete=False), Spec(3, 2, discrete=True)
PICTURE = Spec(3, 2, discrete=False, images=((0, (1, 3, 1)),), pixels=True)
AMONG = Spec(4, 2, discrete=False, images=((0, (1, 3, 1)),), bytes=((0, 3),))
SMALL = Spec(3, 1, discrete=False)
MASKED = Spec(3 + 4, 4, discrete=True, mask=4)
CHOICES = Spec(3 + 5, 3, discrete=True, choices=(2, 3), mask=5)
KINDS = ("a2c", "sac", "squashed a2c", "ppo", "sac_discrete", "sac of pictures",
         "sac of one action", "sac of distributions", "sac of pictures among numbers",
         "masked sac_discrete", "masked ppo")  # fmt: skip
needs_compiler = pytest.mark.skipif(automatic.compiler() is None, reason="no C++ compiler")


def graphed(made, mode, data, obs):
    """Puts its updates and actions into graphs, which leaves it as it was."""
    before = digest(made.state_dict())
    accelerate(made, mode, data, obs)
    assert digest(made.state_dict()) == before


def learner(kind, mode="none"):
    """One of each kind of update, with what a user may add to it."""
    if kind == "sac of rows":
        made = agent("sac", SMALL, normalise_obs=True, max_grad_norm=1.0, lr_schedule="linear")
        data = replay().example(batch(8, spec=SMALL)._replace(latent=None), 2)
    elif kind == "sac":
        made = agent("sac", CONTINUOUS, policy_delay=2, normalise_obs=True, max_grad_norm=1.0,
                     actor_tau=0.3)  # fmt: skip
        data = batch(8, spec=CONTINUOUS)._replace(latent=None)
    elif kind == "sac_discrete":
        made = agent("sac_discrete", DISCRETE, normalise_obs=True)
        data = batch(8, spec=DISCRETE)._replace(latent=None)
    elif kind == "sac of one action":
        made = agent("sac", SMALL, normalise_critic=True)
        data = batch(8, spec=SMALL)._replace(latent=None)
    elif kind == "sac of distributions":
        made = agent("sac", CONTINUOUS, atoms=11)
        made.observe(batch(3, spec=CONTINUOUS))
        data = batch(8, spec=CONTINUOUS)._replace(latent=None)
    elif kind == "sac of pictures":
        made = agent("sac", PICTURE)
        data = batch(8, spec=PICTURE)._replace(latent=None)
    elif kind == "sac of pictures among numbers":
        made = agent("sac", AMONG, normalise_obs=True)
        data = batch(8, spec=AMONG)._replace(latent=None)
    elif kind == "masked sac_discrete":
        made = agent("sac_discrete", MASKED, normalise_obs=True)
        data = masked(8, spec=MASKED)._replace(latent=None)
    elif kind == "masked ppo":
        made = agent("ppo", CHOICES, batch_size=6, epochs=3, shared_torso=True, ent_coef=0.01)
        data = masked(4, 3, spec=CHOICES)
    elif kind == "ppo":
        made = agent("ppo", CONTINUOUS, policy="tanh_gaussian", batch_size=6, epochs=3,
                     target_kl=0.05, lr_schedule="linear", clip_schedule="linear")  # fmt: skip
        data = batch(4, 3, spec=CONTINUOUS)
    elif kind == "a2c":
        made = agent("a2c", DISCRETE, normalise_obs=True, lr_schedule="linear")
        data = batch(4, 3, spec=DISCRETE)
    else:
        made = agent("a2c", CONTINUOUS, policy="tanh_gaussian", shared_torso=True, ent_coef=0.01)
        data = batch(4, 3, spec=CONTINUOUS)
    if mode != "none":
        shape, masks = (3, data.obs.shape[-1]), float(made.spec.mask > 0)
        graphed(made, mode, data, torch.full(shape, masks, dtype=data.obs.dtype))
    return made, data


def replay():
    """Of two environments and few rows, so that it wraps soon; batches of 8."""
    return Replay(16, 8, 1, 1.0, torch.Generator().manual_seed(0))


@pytest.fixture(
    scope="module",
    params=["sac of rows", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS)],
)
def compiled(request):
    """(kind, compiled agent, its batch), compiled once; tests restore `fresh` before use."""
    made, data = learner(request.param, "compile")
    return request.param, made, data


@needs_compiler
def test_compiled_equals_eager_on_the_same_batch_and_noise(compiled):
    kind, fast, data = compiled
    slow, _ = learner(kind)
    if kind in ("sac of rows", "sac of distributions"):
        slow.observe(batch(3, spec=slow.spec, seed=1))
    fast.load_state_dict(saved_and_read(slow.state_dict()))
    for _ in range(6):
        told, expected = fast.update(data), slow.update(data)
        assert_told_the_same(told, expected)
    ours, theirs = fast.state_dict(), slow.state_dict()
    assert torch.allclose(numbers(ours["modules"]), numbers(theirs["modules"]), 1e-4, 1e-5)
    assert digest(ours["generators"]) == digest(theirs["generators"])
    assert ours["optimizer"]["updates"] == theirs["optimizer"]["updates"]
    moved = numbers(ours["modules"]) - numbers(learner(kind)[0].state_dict()["modules"])
    assert moved.abs().max() > 1e-3  # it did learn


@needs_compiler
def test_compiled_acts_as_eager_does_and_sees_new_weights(compiled):
    kind, fast, data = compiled
    slow, _ = learner(kind)
    fast.load_state_dict(saved_and_read(slow.state_dict()))
    for rows in (3, 3, 5):  # it was compiled for 3
        fast.update(data)
        slow.load_state_dict(saved_and_read(fast.state_dict()))
        width = data.obs.shape[-1]
        obs = torch.linspace(0.0, 3.0, rows * width).reshape(rows, width).to(data.obs.dtype)
        for told, expected in zip(fast.act(obs), slow.act(obs), strict=True):
            assert told.shape == expected.shape
            assert torch.allclose(told, expected, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_compiled_repeats_and_resumes_bit_for_bit(compiled):
    kind, fast, data = compiled
    fresh = saved_and_read(learner(kind)[0].state_dict())
    assert_repeats_and_resumes(fast, learner(kind, "compile")[0], fresh, data)


@needs_compiler
def test_compiled_commits_nothing_once_it_is_not_finite(compiled):
    kind, fast, data = compiled
    fast.load_state_dict(saved_and_read(learner(kind)[0].state_dict()))
    assert_commits_nothing_once_not_finite(fast, data)


@pytest.mark.slow
@needs_compiler
def test_a_kl_that_is_too_large_stops_compiled_passes_too():
    data, counts = batch(4, 3, spec=CONTINUOUS), []
    for mode in ("none", "compile"):
        made = agent("ppo", CONTINUOUS, batch_size=6, epochs=5, target_kl=1e-6, lr=1e-2)
        if mode == "compile":
            graphed(made, mode, data, torch.zeros(3, 3))
        made.update(data)
        counts.append(made.optimizer.counts["actor"][0].item())
    assert counts == [1.0, 1.0]


@needs_compiler
@pytest.mark.parametrize("compiled", ["sac of rows"], indirect=True)
def test_a_compiled_update_reads_its_rows_from_the_replay(compiled):
    kind, fast, _ = compiled
    slow, _ = learner(kind)
    fast.load_state_dict(saved_and_read(slow.state_dict()))
    assert_reads_rows(fast, slow, replay(), SMALL)


def test_each_combination_of_constants_is_a_graph_of_its_own(monkeypatch):
    def scaled(values, twice):
        return {"scaled": values * (2 if twice else 3)}

    def trace(function, arguments, given):
        *_, twice = arguments
        return function(*arguments), lambda given: function(*given, twice)

    monkeypatch.setattr("runtime.accelerate.compiled.trace", trace)
    fast = Compiled(scaled)
    for twice in (True, False, True, False):  # compiled, then called directly
        values = torch.rand(3)
        assert torch.equal(fast(values, twice)["scaled"], scaled(values, twice)["scaled"])
    assert len(fast.codes) == 2


class Recorded:
    """Stands in for a CUDA graph where there is no GPU: `replay` calls what was captured."""

    def __init__(self):
        self.call, self.results = None, None

    def replay(self):
        for place, value in zip(self.results, tensors(self.call()), strict=True):
            place.copy_(value)


class Recording(acceleration.CudaGraph):
    """Captures by noting the function and its own arguments, all else as it is."""

    def capture(self, arguments):
        function, state = self.function, copy.deepcopy(self.agent.state_dict())

        def noted(*own):
            self.own = own
            return function(*own)

        self.function = noted
        graph, places, results = super().capture(arguments)
        self.function, own = function, self.own
        self.agent.load_state_dict(state)  # a capture runs nothing
        graph.call, graph.results = lambda: function(*own), tensors(results)
        return graph, places, results


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_captured_graph_reads_and_writes_are_the_right_places(kind, monkeypatch):
    (slow, data), (fast, _) = learner(kind), learner(kind)
    Recording.agent = fast
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(captured, "gc", mock.MagicMock())  # half the time, and nothing to free
    monkeypatch.setattr(acceleration, "CudaGraph", Recording)
    stored = replay()
    example = data if fast.settings.on_policy else stored.example(data, 2)
    seen = torch.ones(3, data.obs.shape[-1], dtype=data.obs.dtype)
    graphed(fast, "cudagraph", example, seen)
    held = []
    for step in range(10):  # two more than fill the replay
        fresh = data
        if not fast.settings.on_policy:
            stored.add(batch(2, spec=fast.spec, seed=step))
            fresh = stored.sample()
        told, expected = fast.update(fresh), slow.update(fresh.read())
        action = fast.act(seen)[0]
        held = [(told["loss/critic"], expected["loss/critic"]), (action, action.clone()), *held[:2]]
        assert all(torch.equal(ours, theirs) for ours, theirs in held)  # none is overwritten
        assert all(torch.equal(told[name], value) for name, value in expected.items()
                   if not value.isnan().any())  # fmt: skip
    assert digest(fast.state_dict()["modules"]) == digest(slow.state_dict()["modules"])


def test_a_replay_that_has_grown_into_its_old_place_is_captured_anew(monkeypatch):
    graph = acceleration.CudaGraph.__new__(acceleration.CudaGraph)
    graph.calls, graph.graphs = {(): acceleration.EAGER_CALLS}, {}
    graph.capture = lambda arguments: (Recorded(), [], ())
    monkeypatch.setattr(Recorded, "replay", lambda self: None)
    monkeypatch.setattr(captured, "moving", lambda arguments: [])
    large = Replay(64, 8, 1, 1.0, torch.Generator()).example(batch(8, spec=SMALL), 2)
    for rows in (large._replace(obs=large.obs[:3]), large, large):
        graph(rows)
    assert len(graph.graphs) == 2


def test_what_cannot_be_compiled_is_one_line(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("g++: fatal\nsecond line")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    with pytest.raises(ConfigError, match="accelerate: compile failed, g\\+\\+: fatal; use"):
        learner("a2c", "compile")


SAC = ["env=pendulum", "agent=sac", "agent.updates_per_step=1"]
PPO = ["env.id=Any-v0", "agent=ppo", "env.num_envs=4", "agent.n_steps=32", "agent.batch_size=8",
       "agent.epochs=10"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ([*SAC, "agent.policy_delay=1", "total_steps=20198"], "none"),  # 19,999 updates
        ([*SAC, "agent.policy_delay=1", "total_steps=20199"], "compile"),
        ([*SAC, "agent.policy_delay=2", "total_steps=40198"], "none"),
        ([*SAC, "agent.policy_delay=2", "total_steps=40199"], "compile"),
        (["env.num_envs=10", "agent.n_steps=5", "total_steps=999950"], "none"),
        (["env.num_envs=10", "agent.n_steps=5", "total_steps=1000000"], "compile"),
        ([*PPO, "total_steps=15999"], "none"),  # 124 rollouts of 128 steps, 160 minibatches each
        ([*PPO, "total_steps=16000"], "compile"),
        ([*SAC, "accelerate=compile"], "compile"),
        (["total_steps=10000000", "accelerate=none"], "none"),
    ],
)
def test_auto_compiles_from_20_000_updates_on(arguments, mode, monkeypatch):
    monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    assert train_config(arguments).accelerate == mode


def test_without_a_compiler_auto_falls_back_and_says_so_and_compile_is_refused(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    config = train_config(["env.num_envs=10", "agent.n_steps=5", "total_steps=1000000"])
    assert config.accelerate == "none"
    announce(SimpleNamespace(path=tmp_path, config=config, step=0, ranks=ALONE))
    why = "20,000 updates would pay, but it needs torch 2.13 and a C++ compiler"
    assert f"accelerate=none ({why})" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="accelerate: compile needs a C\\+\\+ compiler"):
        train_config(["accelerate=compile"])


def test_an_older_torch_is_not_asked_to_compile(monkeypatch):
    monkeypatch.setattr(automatic, "version", lambda _: "2.12.1+cpu")
    monkeypatch.setattr(automatic, "compiler", lambda: "g++")
    config = train_config(["env.num_envs=10", "agent.n_steps=5", "total_steps=1000000"])
    assert config.accelerate == "none"
    assert "needs torch 2.13" in automatic.acceleration(config)[1]


def test_a_gpu_gets_a_graph_and_nothing_else_does():
    assert train_config(["device=cuda:0"]).accelerate == "cudagraph"
    with pytest.raises(ConfigError, match="cudagraph needs device=cuda, got cpu"):
        train_config(["accelerate=cudagraph"])
