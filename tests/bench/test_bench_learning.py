"""What is learned beside the peer: tasks that fit on both sides, and the table made of them."""

import re
import sys

import pytest

from bench import bench_learning
from bench.bench_learning import TASKS
from bench.contestant import UNSEEN, USUAL
from configs.compose import train_config


@pytest.mark.parametrize("name", TASKS)
def test_every_task_composes_and_fits_into_whole_rollouts_of_both_sides(name):
    task = TASKS[name]
    config = train_config(bench_learning.command(task))
    if task.peer is None:  # learned as by train.py alone
        assert config == train_config([*task.overrides])
        return
    peer = USUAL | task.peer
    assert config.env.id == peer["env"]
    assert config.env.kwargs == peer["kwargs"]
    if config.agent.on_policy:
        assert task.steps % (config.agent.n_steps * config.env.num_envs) == 0
        assert task.steps % (peer["settings"]["n_steps"] * peer["num_envs"]) == 0


@pytest.mark.parametrize("argument", ["only=nothing", "seeds=x", "seeds=3-", "zzz=1", "only"])
def test_what_is_not_understood_is_told_in_one_line_and_starts_nothing(
    argument, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert bench_learning.main([argument]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {argument.partition('=')[0]}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "argument", "line"),
    [
        ("Box2D", "peer=false", r'env\.id: LunarLander-v3 .*; pip install "\.\[box2d\]"'),
        ("stable_baselines3", "seeds=0", r'peer: .*; pip install .*"\.\[bench\]", or peer=false'),
    ],
)
def test_what_is_missing_is_told_before_anything_is_learned(
    module, argument, line, tmp_path, monkeypatch, capsys
):
    for name in list(sys.modules):
        if f"{name}.".startswith((f"{module}.", "gymnasium.envs.box2d.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.setattr(bench_learning, "learn", lambda *_: pytest.fail("it learns"))
    monkeypatch.chdir(tmp_path)
    assert bench_learning.main(["only=cartpole-ppo,lunar_lander-ppo", argument]) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf"error: {line}\n", captured.err)
    assert not captured.out
    assert not list(tmp_path.iterdir())


def test_a_line_of_the_table_by_hand():
    def rows(*returns):
        curves = ([0.0, 500.0, 500.0, 480.0], [0.0, 500.0, 480.0], [500.0, 480.0])
        return [
            {"return_mean": value, "seconds": 2.0 * value, "curve": [*enumerate(curve)]}
            for value, curve in zip(returns, curves, strict=False)
        ]

    sides = {"ours": rows(480.0, 500.0, 100.0), "SB3": rows(470.0, 474.0)}
    cells = bench_learning.line("cartpole-ppo", TASKS["cartpole-ppo"], sides).split(" | ")
    assert cells[2] == "≥ 475 on 10 of 10"
    assert cells[3:6] == ["480.0 (100.0 to 500.0)", "2 of 3 (2)", "960.0"]
    assert cells[6:] == ["472.0 (470.0 to 474.0)", "0 of 2 (1)", "944.0 |"]
    above = bench_learning.line("hopper-sac", TASKS["hopper-sac"], sides).split(" | ")
    assert (above[2], above[4], above[7]) == ("above SB3 on 3 of 3", "2 of 3 (2)", "")


def test_both_sides_are_evaluated_alike_and_ours_alone_as_any_run(tmp_path, monkeypatch):
    given = []

    def trained(overrides, seed, run_dir, *evaluation):
        given.append((overrides, seed, evaluation))
        return {"seed": seed}, {"wall_seconds": 2.0}

    monkeypatch.setattr(bench_learning, "train_and_evaluate", trained)
    monkeypatch.setattr(bench_learning, "answer", lambda spec: {"seconds": 0.0, "spec": spec})
    task = TASKS["lunar_lander-ppo"]
    row = bench_learning.ours(task, 3, tmp_path / "s3", 2)
    assert row == {"seed": 3, "training_seconds": 2.0, "threads": 2}
    ends = [f"total_steps={task.steps}", "eval.every=49971", "eval.episodes=20", "threads=2"]
    alike = ("episodes=100", "deterministic=true", f"seed={UNSEEN + 3}")
    assert given.pop() == ([*task.overrides, *ends], 3, alike)
    spec = bench_learning.theirs(task, 3, 2)["spec"]
    assert {name: spec[name] for name in set(spec) - set(task.peer)} == {
        **{"seed": 3, "budget": task.steps, "every": 49971, "threads": 2},
        **{"episodes": 20, "final_episodes": 100},
    }
    alone = TASKS["textbook-a2c"]
    bench_learning.ours(alone, 3, tmp_path / "s3", 2)
    ends = [f"total_steps={alone.steps}", "threads=2"]
    assert given.pop() == ([*alone.overrides, *ends], 3, ("episodes=100", "deterministic=false"))


def test_what_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    learned: list[tuple[str, int]] = []

    def one(side, stop_at):
        def learn(task, seed, *_):
            if (side, seed) == stop_at:
                raise KeyboardInterrupt
            learned.append((side, seed))
            return {"seed": seed, "threads": 1, "return_mean": 500.0}

        return learn

    task, folder = TASKS["cartpole-ppo"], tmp_path / "cartpole-ppo"
    monkeypatch.setattr(bench_learning, "ours", one("ours", None))
    monkeypatch.setattr(bench_learning, "theirs", one("SB3", ("SB3", 1)))
    with pytest.raises(KeyboardInterrupt):
        bench_learning.learn(task, range(3), True, folder)
    assert sorted(learned) == [("SB3", 0), ("ours", 0), ("ours", 1)]
    monkeypatch.setattr(bench_learning, "theirs", one("SB3", None))
    sides = bench_learning.learn(task, range(1, 3), True, folder)
    assert learned[3:] == [("SB3", 1), ("ours", 2), ("SB3", 2)]
    sides = bench_learning.learn(task, range(6), True, folder, lanes=3)
    assert sorted(learned[6:]) == [(side, seed) for side in ("SB3", "ours") for seed in (3, 4, 5)]
    assert [row["seed"] for row in sides["SB3"]] == list(range(6))
    learned.clear()
    bench_learning.learn(task, range(7), False, folder)  # the peer's rows that are known stay
    assert learned == [("ours", 6)]
    sides = bench_learning.learn(task, range(1, 3), True, folder)
    assert {side: [row["seed"] for row in rows] for side, rows in sides.items()} == {
        "ours": [1, 2],
        "SB3": [1, 2],
    }
