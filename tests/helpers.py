"""Small agents, batches and environments that several tests share."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import torch

from agents import make_agent
from common import tree
from common.seeding import stream
from configs.compose import train_config
from configs.schema import EnvConfig
from data import Spec, Transition
from envs.envs import pack
from runtime.evaluation import Evaluator


def settings(name, **changes):
    """The default hyperparameters of an agent, with changes."""
    config = train_config([f"agent={name}", "env.id=Any-v0"])  # no tuned pair
    return replace(config.agent, hidden=[16, 16], **changes)


def agent(name, spec=None, seed=0, horizon=1000, device="cpu", **changes):
    spec = spec or Spec(3, 2, discrete=False)
    chosen = settings(name, **changes)
    return make_agent(spec, chosen, lambda key: stream(seed, key, device), horizon)


def batch(*leading, spec=None, seed=0, discrete=False):
    """Random transitions with the leading dimensions given."""
    generator = torch.Generator().manual_seed(seed)
    spec = spec or Spec(3, 2, discrete=discrete)

    def normal(*shape):
        return torch.randn(*leading, *shape, generator=generator)

    if spec.discrete:
        action = torch.randint(spec.action_dim, leading, generator=generator)
        latent = action
    else:
        latent = normal(spec.action_dim)
        action = torch.tanh(latent)

    def seen():
        bytes_ = torch.randint(256, (*leading, spec.obs_dim), generator=generator).byte()
        rest = normal(spec.obs_dim - spec.image_bytes)
        images = bytes_[..., : spec.image_bytes]
        return torch.from_numpy(pack(rest.numpy(), images.numpy())) if spec.image_bytes else rest

    return Transition(
        seen(), action, normal(), seen(),
        normal() > 1, normal() > 1, latent,
    )  # fmt: skip


def masked(*leading, spec, seed=0):
    """Random transitions of permitted actions; those of next_obs are others."""
    data = batch(*leading, spec=spec, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    sizes = spec.choices or (spec.action_dim,)
    for obs in (data.obs, data.next_obs):
        mask = torch.rand(*leading, spec.mask, generator=generator) < 0.5
        for part in mask.split(sizes, -1):  # views
            part[..., -1] |= ~part.any(-1)
        obs[..., -spec.mask :] = mask.float()
    parts = data.obs[..., -spec.mask :].split(sizes, -1)
    action = torch.stack([torch.distributions.Categorical(probs=p).sample() for p in parts], -1)
    action = action if spec.choices else action.squeeze(-1)
    return data._replace(action=action, latent=action)


def evaluator_of(env_id, how, kwargs, episodes, seed, *, timeout=60.0, wrappers=(), **options):
    """Plays this environment; with `how="async"` it has `timeout` seconds to answer."""
    env = EnvConfig(env_id, 1, how, kwargs, [*wrappers], timeout)
    return Evaluator(env, episodes, seed, **options)


class Counting(gymnasium.Env):
    """Observation: (episode number, step within it). Ends by `length`, in one way or the other."""

    def __init__(
        self,
        length=3,
        ends="terminated",
        reward=None,
        show_episode=True,
        choices=None,
        pay_episode=False,
    ):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 6.0, (1,), np.float32)
        if choices:
            several = not isinstance(choices, int)
            kind = gymnasium.spaces.MultiDiscrete if several else gymnasium.spaces.Discrete
            self.action_space = kind(choices)
        self.length, self.ends, self.fixed = length, ends, reward
        self.show_episode, self.episode, self.count = show_episode, -1, 0
        self.pay_episode = pay_episode
        self.obs = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        done = self.count >= self.length
        reward = float(action[0]) if self.fixed is None else self.fixed
        reward += self.episode * self.pay_episode
        return self.observe(), reward, done and self.ends == "terminated", (
            done and self.ends == "truncated"
        ), {}  # fmt: skip

    def observe(self):
        self.obs[:] = (
            self.episode * self.show_episode,
            self.count,
        )  # one array, changed in place: must be copied
        return self.obs


class Picture(gymnasium.Env):
    """One step; reward 1 for the action on the side that is lit, else -1.

    The right: the second action, or the positive half. `among` other numbers it is part of a Dict.
    """

    def __init__(self, discrete, shape=(4, 6, 1), among=False):
        self.camera = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.arm = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        both = gymnasium.spaces.Dict({"arm": self.arm, "camera": self.camera})
        self.among, self.observation_space = among, both if among else self.camera
        self.action_space = (
            gymnasium.spaces.Discrete(2) if discrete else gymnasium.spaces.Box(-1, 1, (1,))
        )
        self.discrete = discrete

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.right = bool(self.np_random.integers(2))
        return self.seen(lit(self.right, self.camera.shape)), {}

    def step(self, action):
        chosen = bool(action == 1 if self.discrete else action[0] > 0)
        obs = self.seen(np.zeros(self.camera.shape, np.uint8))
        return obs, 1.0 if chosen == self.right else -1.0, True, False, {}

    def seen(self, picture):
        return {"arm": self.np_random.uniform(-1, 1, 2).astype(np.float32),
                "camera": picture} if self.among else picture  # fmt: skip


def lit(right, shape=(4, 6, 1)):
    picture = np.zeros(shape, np.uint8)
    half = picture[:, shape[1] // 2 :] if right else picture[:, : shape[1] // 2]
    half[1:-1, 1:-1] = 255
    return picture


gymnasium.register("Counting-v0", entry_point=Counting)
gymnasium.register("Picture-v0", entry_point=Picture)


def numbers(state):
    """All numbers of a state as one vector."""
    return torch.cat([tensor.flatten().double().cpu() for tensor in tensors(state)])


def tensors(state):
    """All tensors of a state, in its order."""
    if isinstance(state, torch.Tensor):
        return [state]
    children = state.values() if isinstance(state, dict) else state
    return [tensor for child in children if isinstance(child, dict | list | tuple | torch.Tensor)
            for tensor in tensors(child)]  # fmt: skip


def assert_repeats_and_resumes(made, again, fresh, data):
    """From `fresh`, updates lead to the same bits twice, and in another agent from halfway on."""
    digests = []
    for _ in range(2):
        made.load_state_dict(fresh)
        for _ in range(3):
            made.update(data)
        halfway = saved_and_read(made.state_dict())
        for _ in range(3):
            made.update(data)
        digests.append(tree.digest(made.state_dict()))
    again.load_state_dict(halfway)
    for _ in range(3):
        again.update(data)
    assert digests == [tree.digest(again.state_dict())] * 2


def assert_commits_nothing_once_not_finite(made, data):
    made.update(data)
    before = saved_and_read(made.state_dict())
    made.update(data._replace(reward=data.reward * torch.nan))
    assert bool(made.optimizer.diverged)
    made.update(data)
    after = made.state_dict()
    assert tree.digest(before["modules"]) == tree.digest(after["modules"])
    for part in ("moments", "counts"):
        assert tree.digest(before["optimizer"][part]) == tree.digest(after["optimizer"][part])


def assert_reads_rows(fast, slow, replay, spec):
    """Updates of `fast` on rows are those of `slow` on what they hold.

    Of a replay of two environments that wraps; at first no observation follows from the one before,
    so that as many rows behind the ring are in use as can be.
    """
    places = set()
    for step in range(60):
        fresh = batch(2, spec=spec, seed=step)
        replay.add(fresh if step < 40 else fresh._replace(obs=replay.last_next_obs))
        drawn = replay.sample()
        assert_told_the_same(fast.update(drawn), slow.update(drawn.read()), atol=1e-4)
        places.add((drawn.obs.data_ptr(), len(drawn.obs)))
    assert len(places) == 1  # it never grows: nothing is compiled again


def assert_told_the_same(told, expected, atol=1e-5):
    assert set(told) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(told[name], value, rtol=1e-3, atol=atol, equal_nan=True), name


def saved_and_read(state):
    """A state after the way through a checkpoint's JSON and tensors."""
    values, tensors = tree.split(state)
    return tree.join(json.loads(json.dumps(values, allow_nan=False)), tensors)
