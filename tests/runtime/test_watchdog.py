"""A temperature that runs away is warned of, once, and goes on being watched after a resume."""

import train
from runtime.launch.door import enter
from runtime.watchdog import Watchdog
from tests.helpers import saved_and_read


def test_a_temperature_that_runs_away_is_warned_of_once(capsys):
    made = Watchdog()

    def log(alpha, entropy):
        made.look({"policy/alpha": alpha, "policy/entropy": entropy, "policy/target_entropy": -1.0})
        return capsys.readouterr().err

    assert log(0.2, -3.0) == ""
    assert log(19.0, -3.0) == ""
    assert log(21.0, -0.5) == ""  # large, and it has had its effect
    made = Watchdog(**saved_and_read(vars(made)))  # its first alpha is kept
    assert log(21.0, -3.0).startswith("warning: the temperature runs away: alpha is 21 and the")
    made = Watchdog(**saved_and_read(vars(made)))
    assert log(30.0, -3.0) == ""


def test_without_a_temperature_there_is_nothing_to_look_at(capsys):
    made = Watchdog()
    made.look({"policy/entropy": -3.0})
    made.look({"policy/alpha": 1.0, "policy/entropy": -3.0})
    assert made == Watchdog()
    assert capsys.readouterr().err == ""


def test_a_run_tells_it_by_the_tags_that_it_logs(tmp_path, monkeypatch, capsys):
    """With a rate at which the policy commits at once, and only the temperature goes on."""
    monkeypatch.chdir(tmp_path)
    small = ["env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=8"]
    small += ["agent.learning_starts=50", "agent.lr=1", "total_steps=150", "log.every=20"]
    assert enter("train", train.run, [*small, "eval.episodes=1", "run_dir=run"]) == 0
    assert capsys.readouterr().err.count("warning: the temperature runs away") == 1
