"""Environments that step all their copies as one. Methods and attributes are those of `Vector`."""

from typing import Any

import numpy as np
import torch
from gymnasium.envs.classic_control import pendulum
from gymnasium.spaces import Box
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate

from common.errors import EnvironmentFault
from common.seeding import derive
from envs.checked import CopyFault
from envs.spaces import LARGEST, Flat, held, read, with_mask
from envs.vector import Step, Vector, episode_seed


class Arrays:
    """The base of these environments."""

    lasting: str | None = None
    idle: np.ndarray | None = None
    waiting: np.ndarray | None = None
    copies: Any = ()  # none that could be used alone

    def renew(self) -> None:
        """Does nothing: arrays cannot fail."""

    def close(self) -> None:
        pass


class NativeCartPole(Arrays):
    """Gymnasium's vectorised CartPole, without its automatic reset.

    It resets on the step after an episode's end; here the finished columns are reset in place, from
    its own generator, before that step. Its arrays are its state.
    """

    def __init__(self, envs: Any) -> None:
        self.envs = envs
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space
        self.limit: int | None = envs.max_episode_steps

    def reset(self, seed: int) -> np.ndarray:
        return self.envs.reset(seed=seed)[0]

    def step(self, action: np.ndarray) -> Step:
        return self.envs.step(action)[:4]

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        envs = self.envs
        size = (4, int(done.sum()))
        envs.state[:, done] = envs.np_random.uniform(envs.low, envs.high, size=size)
        envs.steps[done] = 0
        envs.prev_done[:] = False
        return envs.state.T.astype(np.float32)

    abandon = reset_done

    def state_dict(self) -> dict[str, Any]:
        return {
            "state": torch.from_numpy(self.envs.state),
            "steps": torch.from_numpy(self.envs.steps),
            "generator": self.envs.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        envs = self.envs
        envs.reset(seed=0)
        envs.state[:], envs.steps[:] = state["state"].numpy(), state["steps"].numpy()
        envs.np_random.bit_generator.state = state["generator"]
        return envs.state.T.astype(np.float32), np.zeros(len(envs.steps), dtype=np.bool_)


class NativePendulum(Arrays):
    """Gymnasium's Pendulum as arrays: bit for bit the episodes that `Vector` plays of it."""

    def __init__(self, count: int, max_episode_steps: int = 200, g: float = 10.0) -> None:
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.env = pendulum.PendulumEnv(g=g)
        self.observation_space = self.env.observation_space
        self.action_space = self.env.action_space
        self.count, self.limit = count, max_episode_steps
        self.never = np.zeros(count, dtype=np.bool_)

    def reset(self, seed: int) -> np.ndarray:
        self.seed = seed
        self.episodes = [-1] * self.count
        self.angle, self.speed = np.zeros((2, self.count))
        self.ages = np.zeros(self.count, dtype=np.int64)
        return self.reset_done(~self.never)

    def step(self, action: np.ndarray) -> Step:
        env, angle, speed = self.env, self.angle, self.speed
        torque = limited(action[:, 0], env.max_torque)
        # As a scalar's **2 rounds it, by the system's pow: an array's is a product.
        square = np.array([one**2 for one in torque])
        cost = np.float_power((angle + np.pi) % (2 * np.pi) - np.pi, 2)
        cost = cost + 0.1 * np.float_power(speed, 2) + 0.001 * square
        pull = 3 * env.g / (2 * env.l) * np.sin(angle) + 3.0 / (env.m * env.l**2) * torque
        self.speed = limited(speed + pull * env.dt, env.max_speed)
        self.angle = angle + self.speed * env.dt
        self.ages += 1
        return self.observation(), -cost, self.never, self.ages >= self.limit

    def observation(self) -> np.ndarray:
        obs = np.empty((self.count, 3), np.float32)
        obs[:, 0], obs[:, 1], obs[:, 2] = np.cos(self.angle), np.sin(self.angle), self.speed
        return obs

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        high = np.array([pendulum.DEFAULT_X, pendulum.DEFAULT_Y])
        for index in map(int, np.flatnonzero(done)):
            self.episodes[index] += 1
            generator = np_random(episode_seed(self.seed, index, self.episodes[index]))[0]
            self.angle[index], self.speed[index] = generator.uniform(-high, high)
        self.ages[done] = 0
        return self.observation()

    abandon = reset_done

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "episodes": list(self.episodes),
            "ages": self.ages.tolist(),
            "state": torch.from_numpy(np.stack([self.angle, self.speed])),
        }

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        self.seed, self.episodes = state["seed"], list(state["episodes"])
        self.ages = np.array(state["ages"])
        self.angle, self.speed = state["state"].numpy().copy()
        return self.observation(), self.never.copy()


class NativeVector(Arrays):
    """Any vector environment, in each of Gymnasium's modes of resetting finished copies.

    DISABLED: a mask resets them, before the next step. SAME_STEP: the step itself does, and `info`
    has their true successors. NEXT_STEP: the step after it does nothing else with them; they are
    `idle` in it, and its row is no transition. If all copies are, that step is made at once.

    `masked`: the part `action_mask` of an observation is the mask of the actions.
    """

    lasting = "nothing that a vector environment has inside can be saved"

    def __init__(self, envs: Any, env_id: str, masked: bool = False) -> None:
        self.envs, self.env_id, self.count = envs, env_id, envs.num_envs
        self.mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        space, self.action_space = envs.single_observation_space, envs.single_action_space
        space = with_mask(space, self.action_space) if masked else space
        self.observation_space: Any = space if isinstance(space, Box) else Flat(env_id, space)
        self.limit: int | None = getattr(envs.spec, "max_episode_steps", None)

    def reset(self, seed: int) -> np.ndarray:
        self.seed, self.resets = seed, 0
        return self.reset_all()

    def reset_all(self) -> np.ndarray:
        obs, _ = self.envs.reset(seed=derive(self.seed, "vector", self.resets) >> 32)
        self.resets += 1
        self.waiting = None
        self.obs = self.observation(obs)
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        self.idle, self.action = self.waiting, action
        obs, reward, terminated, truncated, info = self.envs.step(action)
        reward = self.flat("reward", reward, np.float64)
        beyond = np.flatnonzero(~(np.abs(reward) <= LARGEST))
        if len(beyond):
            raise CopyFault(f"reward {reward[beyond[0]]} is not finite", int(beyond[0]))
        terminated = self.flat("terminated", terminated, np.bool_)
        truncated = self.flat("truncated", truncated, np.bool_)
        self.obs, finished = self.observation(obs), terminated | truncated
        self.waiting = finished if self.mode is AutoresetMode.NEXT_STEP and finished.any() else None
        successors = self.obs
        if self.mode is AutoresetMode.SAME_STEP and finished.any():
            if "final_obs" not in info:
                raise ValueError("info has no final_obs, the last observations of SAME_STEP")
            successors = self.obs.copy()
            for index in map(int, np.flatnonzero(finished)):
                final = row(info["final_obs"], index)
                successors[index] = read(self.observation_space, final)
        return successors, reward, terminated, truncated

    def reset_done(self, done: np.ndarray) -> np.ndarray:
        if self.mode is AutoresetMode.DISABLED:
            obs, _ = self.envs.reset(options={"reset_mask": done})
            self.obs = self.observation(obs)
        elif self.mode is AutoresetMode.NEXT_STEP and done.all():
            self.obs = self.observation(self.envs.step(self.action)[0])
            self.waiting = None
        return self.obs

    def abandon(self, mask: np.ndarray) -> np.ndarray:
        if mask.all():
            return self.reset_all()
        if self.mode is AutoresetMode.DISABLED:
            return self.reset_done(mask)
        raise EnvironmentFault(
            f"env {self.env_id}: cannot end an episode of one copy alone; raise eval.max_length, "
            "or make it with AutoresetMode.DISABLED"
        )

    def observation(self, obs: Any) -> np.ndarray:
        """Observations of all copies as an array (N, ...) of their own."""
        space = self.observation_space
        if isinstance(space, Flat):
            return np.stack([read(space, one) for one in iterate(self.envs.observation_space, obs)])
        array, shape = held(space, obs, "observation", shaped=False), (self.count, *space.shape)
        if array.shape != shape:
            raise ValueError(f"observations have shape {array.shape}, their space {shape}")
        return array.copy()

    def flat(self, name: str, values: Any, dtype: type) -> np.ndarray:
        array: np.ndarray = np.asarray(values).astype(dtype)
        if array.shape != (self.count,):
            raise ValueError(f"{name} has shape {array.shape}, not ({self.count},)")
        return array

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "resets": self.resets}

    def load_state_dict(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Begins new episodes: no state can be restored."""
        self.seed, self.resets = state["seed"], state["resets"]
        return self.reset_all(), np.ones(self.count, dtype=np.bool_)

    def close(self) -> None:
        self.envs.close()


def limited(numbers: np.ndarray, most: float) -> np.ndarray:
    """To [-most, most], in half of the time that np.clip takes."""
    return np.minimum(np.maximum(numbers, -most), most)


def row(batch: Any, index: int) -> Any:
    """The part of one copy in arrays, dictionaries or tuples of all copies."""
    if isinstance(batch, dict):
        return {key: row(part, index) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(row(part, index) for part in batch)
    return batch[index]


Backend = Vector | NativeCartPole | NativePendulum | NativeVector
