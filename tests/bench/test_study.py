"""`bench/study.py`: what is learned, and what the rows of several settings show."""

import json
from statistics import NormalDist
from typing import Any

import pytest

from bench import study
from configs.compose import train_config
from tools.published import published


def rows(**returns: float) -> str:
    """The file of one setting on one task; s3=1.0 is the return of seed 3."""
    ours = [{"seed": int(name[1:]), "return_mean": value} for name, value in returns.items()]
    return json.dumps({"ours": ours})


def test_settings_are_compared_on_the_tasks_and_seeds_that_both_have(tmp_path, capsys):
    hopper, walker = (study.STUDY["tasks"][task]["reference"] for task in ("hopper", "walker2d"))
    (tmp_path / "hopper-raw.json").write_text(rows(s1=hopper, s2=hopper, s3=9 * hopper))
    (tmp_path / "hopper-unit.json").write_text(rows(s1=2 * hopper, s2=2 * hopper, s9=hopper))
    (tmp_path / "walker2d-unit.json").write_text(rows(s1=9 * walker))
    keys = ["settings=raw,unit", "tasks=hopper,walker2d", "seeds=1-8", "learn=false"]
    assert study.main([*keys, f"out={tmp_path}"]) == 0
    raw, unit = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:])
    assert raw[:3] == ["| raw", f"{11 / 3 * hopper:,.0f} (3)", ""]
    assert unit[1:3] == [f"{2 * hopper:,.0f} (2)", f"{9 * walker:,.0f} (1)"]
    assert unit[4:] == ["+1.00 (+1.00 to +1.00)", "0.00", "1.00 (1.00 to 1.00) |"]


def test_each_setting_is_learned_with_the_keys_of_all_of_its_task_and_its_own(
    tmp_path, monkeypatch, capsys
):
    learned: list[Any] = []
    (tmp_path / "ant-unit/s100").mkdir(parents=True)  # a run, as `learn` leaves it
    monkeypatch.setattr(study, "learn", lambda *given: learned.append(given))
    keys = ["settings=unit", "tasks=ant", "seeds=100-101", "lanes=3", f"out={tmp_path}"]
    assert study.main(keys) == 0
    ((task, seeds, with_peer, folder, lanes),) = learned
    config = train_config([*task.overrides])
    agent = config.agent
    found = (config.env.id, agent.target_entropy, agent.reward_scale, agent.alpha_init)
    assert found == ("Ant-v5", -4.0, "auto", 0.01)
    assert (task.steps, task.episodes, [*seeds], with_peer, lanes) == (
        *(100_000, 100, [100, 101], False, 3),
    )
    assert folder == tmp_path / "ant-unit"
    assert not folder.exists()


def test_of_the_smallest_difference_80_percent_of_estimates_are_beyond_the_interval():
    end = NormalDist().inv_cdf(0.975)  # half of a 95 % interval, in standard errors
    assert 1 - NormalDist(study.DETECTED * end).cdf(end) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("task", study.STUDY["tasks"])
def test_returns_are_shares_of_what_crossq_publishes(task):
    (theirs,) = (one for one in published()[task] if one.source["who"] == "CrossQ")
    at = [*theirs.steps].index(study.STUDY["steps"])
    assert study.STUDY["tasks"][task]["reference"] == theirs.mean[at]
