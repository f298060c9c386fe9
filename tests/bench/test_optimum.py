"""The best play of Pendulum: its dynamics are Gymnasium's, and its table what a search finds."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
import torch

from bench.optimum import TORQUE, Table, main, play, starts, step
from runtime.launch.door import enter
from train import run as train


def test_a_step_is_gymnasiums():
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        angle, speed, torque = (
            rng.uniform(-math.pi, math.pi),
            rng.uniform(-8, 8),
            rng.uniform(-2, 2),
        )
        env.state = np.array([angle, speed])
        obs, reward, *_ = env.step(np.array([torque], np.float32))
        given = [torch.tensor([number], dtype=torch.float64) for number in (angle, speed, torque)]
        told, next_angle, next_speed = step(*given)
        assert told.item() == pytest.approx(reward, rel=1e-6)
        found = [next_angle.cos().item(), next_angle.sin().item(), next_speed.item()]
        np.testing.assert_allclose(found, obs, atol=1e-5)


def test_starts_are_drawn_as_a_reset_draws_them():
    angle, speed = starts(100_000)
    for drawn, most in ((angle, math.pi), (speed, 1.0)):
        assert -most <= drawn.min() < -0.999 * most
        assert 0.999 * most < drawn.max() <= most
        assert drawn.mean().abs() < 5 * most / math.sqrt(3 * 100_000)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_a_short_table_is_what_a_search_over_all_torques_finds(gamma):
    table = Table(256, steps=3, gamma=gamma)
    angle, speed = starts(200)
    best = torch.full((200,), -math.inf)
    for torques in itertools.product(table.torques(17), repeat=3):
        total, state = torch.zeros(200), (angle, speed)
        for count, torque in enumerate(torques):
            reward, *state = step(*state, torque)
            total += gamma**count * reward
        best = torch.maximum(best, total)
    torch.testing.assert_close(table.at(3, angle, speed), best, atol=0.02, rtol=2e-3)


def test_the_best_play_beats_others_and_does_what_its_table_says():
    table = Table(96)
    angle, speed = starts(300)
    best = play(table.act, angle, speed)
    predicted = table.at(-1, angle, speed)
    assert (best - predicted).mean().abs() < 3.0
    assert -148 < best.mean() < -132
    idle = play(lambda angle, speed, left: torch.zeros_like(angle), angle, speed)
    pumping = play(lambda angle, speed, left: TORQUE * speed.sign(), angle, speed)
    assert (best >= idle - 1.0).all()
    near = play(Table(96, gamma=0.9).act, angle, speed)
    assert 3.0 < (best - near).mean() < 100.0  # a short sight costs something
    assert best.mean() > max(idle.mean(), pumping.mean()) + 100


def test_bad_input_is_one_line(tmp_path, capsys):
    for argument in ("run=", "gamma=1", "gamma=x"):
        assert main([argument]) == 2
        assert capsys.readouterr().err.startswith(f"error: {argument.partition('=')[0]}: ")
    other = ["total_steps=80", "env.num_envs=2", "agent.n_steps=5", f"run_dir={tmp_path / 'run'}"]
    assert enter("train", train, other) == 0
    capsys.readouterr()
    assert main([f"run={tmp_path / 'run'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: run: {tmp_path / 'run'} is not one of Pendulum")
