"""What environments do wrong, and what they may do: every case ends as the table says."""

import dataclasses
import os
import shutil
import time
import warnings
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

import train
from configs.compose import Asked, train_config
from runtime.launch.door import enter
from storage import checkpoint
from tests.test_doors import (
    FAULTY,
    UNSERVED,
    at_step,
    episode,
    raising,
    with_observation,
    with_reward,
)

LIMIT = 120.0  # seconds: on an idle machine none takes 10, and none may hang
F32 = np.float32


def third(change: Any) -> Any:
    return episode(step=at_step(3, change))


def always(**changes: Any) -> Any:
    """A step that returns what the well-behaved one does, with some of it otherwise."""

    def step(self: Any, action: Any) -> Any:
        self.count += 1
        row = {"obs": np.zeros(3, F32), "reward": 1.0, "terminated": self.count == 10,
               "truncated": False, "info": {}}  # fmt: skip
        row |= {name: value(self) if callable(value) else value for name, value in changes.items()}
        return tuple(row.values())

    return episode(step=step)


def nan_at_reset(self: Any, **_: Any) -> Any:
    self.count = 0
    return np.full(3, np.nan, F32), {}


def aliased(self: Any) -> Any:
    self.kept = getattr(self, "kept", np.zeros(3, F32))
    self.kept[:] = self.count % 7
    return self.kept


CODE3: dict[str, Any] = {
    "ObsNanFirst": third(with_observation(np.array([np.nan, 0, 0], F32))),
    "ObsMinusInf": third(with_observation(np.array([0, -np.inf, 0], F32))),
    "ObsOverflow": third(with_observation(np.array([0, 0, 1e308]))),
    "ObsLong": third(with_observation(np.zeros(4, F32))),
    "ObsScalar": third(with_observation(0.0)),
    "ObsTwoD": third(with_observation(np.zeros((3, 1), F32))),
    "ObsText": third(with_observation("none")),
    "ObsComplex": third(with_observation(np.zeros(3, complex))),
    "ObsDict": third(with_observation({"a": np.zeros(3)})),
    "ObsObjects": third(with_observation(np.array([0, None, 0], dtype=object))),
    "ObsRagged": third(with_observation([[0], [0, 1], 0])),
    "ResetNan": episode(reset=nan_at_reset),
    "ResetShort": episode(reset=lambda self, **_: (np.zeros(2, F32), {})),
    "ResetOne": episode(reset=lambda self, **_: (np.zeros(3, F32),)),
    "ResetExit": episode(reset=raising(SystemExit(0))),
    "StepExit": episode(step=raising(SystemExit(3))),
    "StepAssert": episode(step=raising(AssertionError())),
    "StepMemory": episode(step=raising(MemoryError("much"))),
    "StepRecursion": episode(step=raising(RecursionError("deep"))),
    "StepUnicode": episode(step=raising(ValueError("\x1b[31m\u2028 red"))),
    "StepNone": episode(step=lambda self, action: None),
    "StepFour": episode(step=lambda self, action: (np.zeros(3, F32), 1.0, False, {})),
    "RewardText": third(with_reward("much")),
    "RewardTwo": third(with_reward(np.zeros(2))),
    "RewardComplex": third(with_reward(1j)),
    "RewardMinusInf": third(with_reward(-np.inf)),
    "TerminatedNone": third(lambda row: [*row[:2], None, False, {}]),
    "TerminatedHalf": third(lambda row: [*row[:2], 0.5, False, {}]),
    "TerminatedText": third(lambda row: [*row[:2], "no", False, {}]),
    "TruncatedNone": third(lambda row: [*row[:3], None, {}]),
    "TruncatedTwo": third(lambda row: [*row[:3], np.zeros(2, bool), {}]),
}
CODE2: dict[str, Any] = {
    "NoChoices": episode(action_space=MultiDiscrete([1, 1])),
    "NanBounds": episode(action_space=Discrete(2), observation_space=Dict(a=Box(0, 1, (0,)))),
    "ManyImages": episode(observation_space=Box(0, 255, (4, 84, 84, 3), np.uint8)),
    "Int16Action": episode(action_space=Box(-3, 3, (1,), np.int16)),
}
CODE0: dict[str, Any] = {
    "ObsFloat64": always(obs=np.zeros(3)),
    "ObsInteger": always(obs=np.zeros(3, np.int32)),
    "ObsList": always(obs=[0.0, 0.0, 0.0]),
    "ObsTuple": always(obs=(0, 0, 0)),
    "ObsAliased": always(obs=aliased),
    "ObsReadOnly": always(obs=np.broadcast_to(F32(0.5), (3,))),
    "RewardInt": always(reward=1),
    "RewardBool": always(reward=True),
    "RewardArray": always(reward=np.array([1.0])),
    "RewardZeroD": always(reward=np.array(1.0)),
    "RewardFloat32": always(reward=F32(1.0)),
    "FlagsNumpy": always(terminated=lambda self: np.bool_(self.count == 10)),
    "FlagsInt": always(terminated=lambda self: int(self.count == 10)),
    "FlagsArray": always(terminated=lambda self: np.array([self.count == 10])),
    "FlagsBoth": always(truncated=lambda self: self.count == 10),
    "InfoNone": always(info=None),
    "InfoText": always(info="hello"),
    "NeverEnds": always(terminated=False),
    "EndsAtOnce": always(terminated=True),
    "CloseRaises": episode(close=raising(OSError("stuck"))),
    "StartsAtFive": episode(action_space=Discrete(2, start=5)),
    "ActionFloat64": episode(action_space=Box(-1.0, 1.0, (2,), np.float64)),
    "BinaryAction": episode(action_space=MultiBinary(3)),
    "ActionTwoD": episode(action_space=Box(-1.0, 1.0, (2, 2))),
    "ActionTiny": episode(action_space=Box(0.0, 1e-6, (1,))),
    "ObsUnbounded": episode(observation_space=Box(-np.inf, np.inf, (3,))),
    "ObsDiscrete": episode(
        observation_space=Discrete(4),
        reset=lambda self, **_: (setattr(self, "count", 0) or 1, {}),
        step=at_step(-1, None),
    ),
    "ObsImage": episode(
        observation_space=Box(0, 255, (4, 6, 3), np.uint8),
        reset=lambda self, **_: (np.zeros((4, 6, 3), np.uint8), {}),
        step=lambda self, action: (np.full((4, 6, 3), 255, np.uint8), 1.0, True, False, {}),
    ),
    "ObsOfParts": episode(
        observation_space=Tuple((Discrete(2), Box(-1.0, 1.0, (2,)))),
        reset=lambda self, **_: (setattr(self, "count", 0) or (1, np.zeros(2, F32)), {}),
        step=lambda self, action: ((0, np.ones(2, F32)), 1.0, True, False, {}),
    ),
}


def discrete_step(self: Any, action: Any) -> Any:
    self.count += 1
    return self.count % 4, 1.0, self.count == 10, False, {}


CODE0["ObsDiscrete"].step = discrete_step
TABLE = {
    **{name: (made, 3) for name, made in {**FAULTY, **CODE3}.items()},
    **{name: (made, 2) for name, made in {**UNSERVED, **CODE2}.items()},
    **{name: (made, 0) for name, made in CODE0.items()},
}
for name_, made_ in {**CODE3, **CODE2, **CODE0}.items():
    gymnasium.register(f"{name_}-v0", entry_point=made_)


@cache
def tiny(agent: str) -> Any:
    small = ["total_steps=64", "eval.episodes=1", "env.num_envs=2", "env.id=Good-v0"]
    return train_config([*small, f"agent={agent}", "agent.n_steps=4", "checkpoint.every=8",
                         "eval.every=64"])  # fmt: skip


def test_the_table_has_sixty_cases_and_more():
    assert len(TABLE) >= 60


@pytest.mark.parametrize("name", TABLE)
def test_every_environment_ends_as_tabled(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = TABLE[name][1]
    config = tiny("a2c")
    config = dataclasses.replace(
        config, env=dataclasses.replace(config.env, id=f"{name}-v0"), run_dir="run"
    )
    monkeypatch.setattr("configs.compose.asked", lambda arguments: Asked(config))
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, of spaces that are refused later
        got = enter("train", train.run, [])
    assert time.monotonic() - began < LIMIT
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if not line.startswith("warning: env")]
    assert got == code, said
    if code == 0:
        assert lines == []
        assert (name in ("CloseRaises", "NeverEnds")) == ("warning" in said)
        assert len(said.splitlines()) <= 2
        return
    (line,) = lines
    assert f"{name}-v0" in line
    assert line.isprintable()
    if code == 3:
        assert "step" in line or "made" in line
    if code == 2:
        assert os.listdir() == []
    elif os.path.exists("run") and checkpoint.names(tmp_path / "run"):
        state = checkpoint.load_newest(tmp_path / "run")[1]
        assert all(t.isfinite().all() for t in floats(state))
    shutil.rmtree("run", ignore_errors=True)


def floats(state: Any) -> list[Any]:
    from common.tree import split

    return [t for t in split(state)[1].values() if t.is_floating_point()]
