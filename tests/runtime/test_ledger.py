"""What the ledger reads off the last update."""

import numpy as np

from runtime.ledger import ledger


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


def test_continuous_actions_have_no_shares_and_eight_columns_are_the_most():
    assert ledger({"policy/action": np.array([0.5, 1.0])}) == {}
    assert len(ledger({"ledger/scale": np.zeros((3, 20))})) == 8
