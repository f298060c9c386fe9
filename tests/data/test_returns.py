"""Advantages: a table worked by hand, brute force, and the two ways in which an episode ends."""

import pytest
import torch

from data import gae

F = False
T = True


def column(*values):
    return torch.tensor(values).unsqueeze(-1)


def one(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    out = gae(column(*reward), column(*value), column(*next_value), column(*terminated),
              column(*truncated), gamma, gae_lambda)  # fmt: skip
    return [x.squeeze(-1).tolist() for x in out]


def test_table_without_an_end():
    """gamma 0.5, lambda 0.5: delta = 1.5, 2, 2.5; A_2 = 2.5, A_1 = 2 + 2.5/4, A_0 = 1.5 + A_1/4."""
    advantage, target = one([1.0, 2.0, 3.0], [0.5, 1.0, 2.0], [2.0, 2.0, 3.0], [F] * 3, [F] * 3,
                            0.5, 0.5)  # fmt: skip
    assert advantage == pytest.approx([1.5 + 2.625 / 4, 2.625, 2.5])
    assert target == pytest.approx([0.5 + 1.5 + 2.625 / 4, 3.625, 4.5])


def test_termination_neither_bootstraps_nor_chains():
    """Row 1 ends the task: delta_1 = 2 - 1; row 0 chains to it, row 1 not to row 2."""
    advantage, _ = one([1.0, 2.0, 3.0], [0.5, 1.0, 2.0], [1.0, 9.0, 3.0], [F, T, F], [F] * 3,
                       0.5, 0.5)  # fmt: skip
    assert advantage == pytest.approx([1.0 + 0.25 * 1.0, 1.0, 2.5])


def test_truncation_bootstraps_but_does_not_chain():
    """Row 1 runs out of time: delta_1 = 2 + 0.5 * 4 - 1."""
    advantage, _ = one([1.0, 2.0, 3.0], [0.5, 1.0, 2.0], [1.0, 4.0, 3.0], [F] * 3, [F, T, F],
                       0.5, 0.5)  # fmt: skip
    assert advantage == pytest.approx([1.0 + 0.25 * 3.0, 3.0, 2.5])


def test_both_at_once_is_a_termination():
    both, _ = one([1.0], [0.5], [7.0], [T], [T], 0.9, 0.9)
    assert both == pytest.approx([0.5])


@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 1.0])
def test_equals_the_sum_that_defines_it(gae_lambda):
    generator = torch.Generator().manual_seed(0)
    steps, envs, gamma = 12, 5, 0.97
    reward, value, next_value = torch.randn(3, steps, envs, generator=generator).double()
    terminated = torch.rand(steps, envs, generator=generator) < 0.15
    truncated = torch.rand(steps, envs, generator=generator) < 0.15
    advantage, target = gae(reward, value, next_value, terminated, truncated, gamma, gae_lambda)
    for env in range(envs):
        for start in range(steps):
            total, weight = 0.0, 1.0
            for t in range(start, steps):
                ends = bool(terminated[t, env])
                total += weight * (
                    reward[t, env] + gamma * next_value[t, env] * (not ends) - value[t, env]
                )
                if ends or truncated[t, env]:
                    break
                weight *= gamma * gae_lambda
            assert advantage[start, env].item() == pytest.approx(float(total), abs=1e-12)
    assert torch.allclose(target, advantage + value)


def test_lambda_one_is_the_discounted_return_to_the_end():
    advantage, target = one([1.0, 1.0, 1.0], [0.2, 0.4, 0.6], [0.4, 0.6, 0.0], [F, F, T], [F] * 3,
                            0.9, 1.0)  # fmt: skip
    assert target == pytest.approx([1 + 0.9 + 0.81, 1.9, 1.0])
    assert advantage == pytest.approx([2.71 - 0.2, 1.5, 0.4])
