"""What the ledger reads off the last update."""

import numpy as np

from runtime.curves import read_scalars
from runtime.launch.door import enter
from runtime.ledger import ledger
from train import run as train


def test_literal_values():
    values = ledger(
        {
            "policy/log_prob": np.arange(101.0),
            "policy/action": np.array([0, 2, 2, 2]),
            "ledger/scale": np.array([[1.0, 2.0], [3.0, 6.0]]),
            "other": np.array([1.0]),
        }
    )
    assert values == {
        "policy/log_prob_q05": 5.0,
        "policy/log_prob_q50": 50.0,
        "policy/log_prob_q95": 95.0,
        "policy/action_share/0": 0.25,
        "policy/action_share/1": 0.0,
        "policy/action_share/2": 0.75,
        "ledger/scale/0": 2.0,
        "ledger/scale/1": 4.0,
    }


def test_an_action_that_was_not_taken_has_a_share_of_zero():
    shares = ledger({"policy/action": np.array([0, 0, 1])}, actions=4)
    assert shares == {f"policy/action_share/{k}": v for k, v in enumerate((2 / 3, 1 / 3, 0, 0))}
    assert len(ledger({"policy/action": np.zeros(3, np.int64)}, actions=20)) == 8
    assert ledger({"policy/action": np.array([0.5, 1.0])}, actions=0) == {}


def test_a_run_tells_the_share_of_each_action_in_every_log(tmp_path):
    """Each of its batches is one action."""
    one = ["env.num_envs=1", "agent.n_steps=1", "agent.normalise_advantage=false", "log.every=10"]
    short = ["total_steps=40", "eval.episodes=2"]
    assert enter("train", train, [*one, *short, f"run_dir={tmp_path / 'run'}"]) == 0
    shares = [read_scalars(tmp_path / "run", f"policy/action_share/{k}") for k in (0, 1)]
    assert [step for step, _ in shares[0]] == [10, 20, 30, 40]
    assert [(step, 1.0 - value) for step, value in shares[0]] == shares[1]


def test_continuous_actions_have_no_shares_and_eight_columns_are_the_most():
    assert ledger({"policy/action": np.array([0.5, 1.0])}) == {}
    assert len(ledger({"ledger/scale": np.zeros((3, 20))})) == 8
