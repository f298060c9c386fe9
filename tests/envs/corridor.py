"""A corridor whose rooms have many doors, two of which open (tests.envs.corridor:Corridor-v0)."""

import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """One door of each room leads on, one back; every step costs 1, also at a door that is locked.

    The most that can be reached is -`rooms`.
    """

    def __init__(self, rooms=12, doors=32, render_mode=None):
        self.observation_space = gymnasium.spaces.Discrete(rooms)
        self.action_space = gymnasium.spaces.Discrete(doors)
        drawn = np.random.default_rng(0)
        self.doors = np.array([drawn.choice(doors, 2, replace=False) for _ in range(rooms)])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room = 0
        return self.room, {}

    def step(self, action):
        on, back = self.doors[self.room]
        self.room = max(0, self.room + int(action == on) - int(action == back))
        out = self.room == len(self.doors)
        return self.room - out, -1.0, out, False, {}

    def action_masks(self):
        """A locked door is forbidden; behind the last room nothing is left to do."""
        mask = np.zeros(self.action_space.n, bool)
        if self.room < len(self.doors):
            mask[self.doors[self.room]] = True
        return mask


gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=200)
