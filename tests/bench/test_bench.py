"""The benchmark's arithmetic, its report and its arguments; of its processes, one of ours."""

import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import bench, contestant, report
from bench.comparisons import COMPARISONS, NAMES, Comparison, Side, Target
from bench.measure import Worker
from bench.report import compare, median, number, paired
from configs.compose import train_config

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("env=pendulum", "env.num_envs=1", "agent=sac", "agent.hidden=[8]", "agent.batch_size=4"),
    *("agent.learning_starts=5", "agent.updates_per_step=1", "total_steps=1000000000000"),
    *("log.every=10", "threads=1", "accelerate=none"),
]


def side(name, values, variant="", **others):
    return {"name": name, "variant": variant, "values": values, **others}


def comparison(kind="rates"):
    sides = (Side("ours", {}), Side("peer", {}))
    return Comparison("a title", kind, "steps/s", sides, {"peer": Target(2.0, 3.0)})


# arithmetic


def test_a_run_that_never_ends_counts_as_infinite_in_a_median():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([1.0, 2.0, 4.0, 8.0]) == 3.0
    assert median([1.0, None, 2.0]) == 2.0
    assert median([1.0, None, None]) == math.inf


def test_ratios_are_taken_within_pairs():
    assert paired([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]
    (ratio,) = compare("x", comparison(), [side("ours", [8, 2, 9]), side("peer", [4, 2, 3])])
    assert (ratio.value, ratio.spread) == (2.0, (1.0, 3.0))
    assert ratio.reached == "asked"


@pytest.mark.parametrize(("kind", "chosen"), [("rates", "fast"), ("costs", "small")])
def test_the_better_variant_of_a_peer_counts(kind, chosen):
    sides = [side("ours", [6, 6]), side("peer", [2, 2], "small"), side("peer", [3, 3], "fast")]
    (ratio,) = compare("x", comparison(kind), sides)
    assert ratio.peer["variant"] == chosen


@pytest.mark.parametrize(
    ("ours", "peer", "value", "reached"),
    [
        ([2.0, 2.0, None], [6.0, 8.0, 9.0], 4.0, "aim"),
        ([2.0, 3.0, 4.0], [None, None, 1.0], math.inf, "aim"),
        ([None, None, 1.0], [1.0, 1.0, 1.0], 0.0, "no"),
        ([None, None], [None, None], 0.0, "no"),
        ([4.0], [9.0], 2.25, "asked"),
    ],
)
def test_a_race_says_how_many_times_faster_ours_is(ours, peer, value, reached):
    (ratio,) = compare("x", comparison("race"), [side("ours", ours), side("peer", peer)])
    assert (ratio.value, ratio.reached) == (value, reached)


@pytest.mark.parametrize(("ours", "reached"), [(0.2, "aim"), (0.45, "asked"), (0.6, "no")])
def test_a_cost_has_to_stay_below_its_target(ours, reached):
    cost = Comparison("", "costs", "s", (), {"peer": Target(0.5, 0.25)})
    (ratio,) = compare("x", cost, [side("ours", [ours]), side("peer", [1.0])])
    assert (ratio.reached, ratio.gain) == (reached, 1 / ours)


def test_a_peer_that_never_arrives_is_shown_as_such():
    (ratio,) = compare("x", comparison("race"), [side("ours", [2.0]), side("peer", [None])])
    assert ratio.cells[1:4] == ["2 steps/s", "peer: never", "∞"]


def test_solved_is_reached_and_held():
    curve = [(n, 10.0 * n, score) for n, score in enumerate([1, 5, 2, 5, 5, 6, 1], 1)]
    assert contestant.solved(curve, 5, 0) == 20.0
    assert contestant.solved(curve, 5, 2) == 40.0
    assert contestant.solved(curve[:5], 5, 2) is None  # not yet held for two more
    assert contestant.solved(curve, 7, 0) is None


def test_numbers_keep_three_digits():
    assert [number(v) for v in (1234.5, 99.94, 0.12345, math.inf)] == [
        *("1,234", "99.9", "0.123", "never")
    ]


# our process


def test_a_worker_of_ours_trains_as_many_steps_as_it_is_told():
    with Worker({"kind": "loop", "overrides": TINY, "warmup": 10}) as worker:
        assert worker.about["threads"] == 1
        done = worker.run(7)
        assert (done["steps"], done["updates"]) == (7, 7)
        assert {"seconds", "cpu", "idle_cpu"} <= set(done)


def test_what_surrounds_the_update_is_a_part_of_the_time(tmp_path):
    """What a worker does, in this process."""
    spec, answers = {"kind": "around", "overrides": TINY, "warmup": 10}, io.StringIO()
    contestant.serve(spec, io.StringIO("run 10\n"), answers, tmp_path)
    _, done = map(json.loads, answers.getvalue().splitlines())
    assert (done["steps"], done["updates"]) == (10, 10)
    assert 0.0 < done["around"] < done["seconds"]


def test_the_seconds_of_the_update_are_left_out(tmp_path, monkeypatch):
    runner = contestant.Around({"overrides": TINY}, tmp_path)
    now = iter(float(2**tick) for tick in range(4))  # run, update, update, run: 1 2 4 8
    runner.run(5)  # without updates
    monkeypatch.setattr(contestant, "perf_counter", lambda: next(now))
    assert runner.run(1)["around"] == (8.0 - 1.0) - (4.0 - 2.0)
    runner.close()


def test_a_worker_that_fails_is_one_line():
    with pytest.raises(Exception, match=r"a contestant ended, .*env\.id") as caught:
        Worker({"kind": "loop", "overrides": ["env.id=Nowhere-v0"], "warmup": 1})
    assert "\n" not in str(caught.value)


def test_the_memory_of_a_process_is_its_own():
    code = (
        "import sys; sys.path.insert(0, '.'); from bench.measure import whole_process\n"
        "for size in (50 * 2**20, 350 * 2**20):\n"  # above what this interpreter itself takes
        "    print(whole_process({'command': ['-c', f\"block = b'x' * {size}\"]})['memory'])"
    )
    little, much = map(float, apart(code).splitlines())
    assert 290 < much - little < 310


# definitions


def specs():
    return [s.spec for c in COMPARISONS.values() for s in c.sides]


def test_our_settings_compose():
    ours = [spec for spec in specs() if "overrides" in spec]
    assert len(ours) > len(COMPARISONS) - 2
    for spec in ours:
        train_config(spec["overrides"])


def test_every_target_has_its_sides_and_asks_less_than_it_aims_for():
    for comparison in COMPARISONS.values():
        assert comparison.sides[0].name == "ours"
        assert set(comparison.targets) == {s.name for s in comparison.sides[1:]}
        for target in comparison.targets.values():
            assert (target.asked > target.aim) is comparison.at_most


# report


MEASURED = {"date": "2026-01-02 03:04", "command": "python bench/bench.py", "revision": "abc",
            "load": 0.5, "machine": "a machine", "versions": {"torch": "2"}}  # fmt: skip


def block(steps):
    return {"steps": steps, "updates": steps, "seconds": 1.0, "cpu": 1.5, "idle_cpu": 0.001}


@pytest.fixture
def results():
    def sides(name):
        made = []
        for at, defined in enumerate(COMPARISONS[name].sides, 1):
            values = [12.0 / at, 10.0 / at]
            extra = {"blocks": [block(v) for v in values]}
            if COMPARISONS[name].measure == "race":
                values = [float(at), None]
                extra = {"curves": [[[100, float(at), 480.0]], [[100, 1.0, 9.0]]]}
            made.append(side(defined.name, values, defined.variant, **extra))
        return {"sides": made, "measured": MEASURED}

    made = {name: sides(name) for name in COMPARISONS}
    return made | {"around": {"around": {"64": 3.25}, "measured": MEASURED}}


def test_the_report_has_every_ratio_and_section(results):
    text = report.markdown(results, {"ratios": "there/ratios.png"})
    for name in NAMES:
        assert re.search(rf"^## {name}: ", text, re.M)
    assert "| sac256 | 11 steps/s | SB3, 1 thread: 5.5 steps/s | 2 (2 to 2) | ≥ 2 | ≥ 3 | asked |"
    assert "| solve-cartpole | never | SB3 A2C: never | 0 | ≥ 1 | ≥ 3 | no |" in text
    assert "(there/ratios.png)" in text
    assert "| 2×64 | 3.2 | under 250 |" in text
    assert "| SB3 PPO | never | 3 | 3 | 1 of 2 |" in text
    for rows in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"\|", row)) for row in rows.splitlines()}) == 1


def test_what_the_report_says_of_our_commands_can_be_typed(results):
    text = report.markdown(results, {})
    commands = re.findall(r"train\.py([^`\n|]*)[`\n|]", text)
    assert commands
    for command in commands:
        train_config([a for a in command.split() if a != "--help"])


def test_a_report_from_a_file_is_the_same_without_measuring(results, tmp_path, capsys):
    for name, part in (("a", list(results)[:4]), ("b", list(results)[4:])):
        (tmp_path / name).write_text(json.dumps({"results": {k: results[k] for k in part}}))
    source = f"{tmp_path / 'b'},{tmp_path / 'a'}"
    out = tmp_path / "out"
    assert bench.main([f"from={source}", f"out={out}"]) == 0
    drawn = {name: f"{name}.png" for name in ("ratios", "solve-cartpole", "solve-pendulum")}
    assert {path.stem for path in out.glob("*.png")} == set(drawn)
    assert (out / "report.md").read_text() == report.markdown(results, drawn)
    assert json.loads((out / "bench.json").read_text())["results"] == results


# arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["only=sac265"], "did you mean sac256?"),
        (["only=all,sac64"], "only: all goes alone; leave it or the others out"),
        (["blocks=0"], "blocks: must be an integer, >= 1"),
        (["seeds=many"], "seeds: must be an integer"),
        (["form=x"], "did you mean from?"),
        (["sac256"], "is not KEY=VALUE"),
        (["from=/nowhere/bench.json"], "is no bench.json"),
        (["from=a", "only=sac64"], "leave only out"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_code_2(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bench.main(arguments) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "module"), [("sac64", "sbx"), ("startup", "stable_baselines3")])
def test_a_missing_peer_is_one_line_that_says_how_to_get_it(
    name, module, capsys, tmp_path, monkeypatch
):
    found = bench.importlib.util.find_spec
    monkeypatch.setattr(
        bench.importlib.util, "find_spec", lambda wanted: None if wanted == module else found("os")
    )
    monkeypatch.chdir(tmp_path)
    assert bench.main([f"only={name}"]) == 2
    said = capsys.readouterr().err
    assert 'pip install -c constraints.txt ".[bench]"' in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ours_alone_needs_no_peer():
    assert bench.needed(["around"]) == []
    assert bench.needed(list(COMPARISONS)) == ["stable_baselines3", "sbx"]


def test_the_parent_stays_small():
    """A child's peak counts from its fork: the process that measures must be smaller."""
    heavy = "{'torch', 'numpy', 'matplotlib', 'gymnasium', 'tensorboard'}"
    code = (
        "import sys; sys.path.insert(0, '.'); import bench.bench;"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    assert apart(code) == "[]"


def apart(code):
    """What code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()
