"""The benchmark's arithmetic, its report and its arguments; of its processes, two of ours."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import bench, contestant, report
from bench.contestant import PEERS
from bench.measure import COMPARISONS, Comparison, answer, measured
from bench.report import number, ratios
from configs import compose
from configs.compose import pair_keys, train_config

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("env=pendulum", "env.num_envs=1", "agent=sac", "agent.hidden=[8]", "agent.batch_size=4"),
    *("agent.learning_starts=5", "agent.updates_per_step=1"),
    *("log.every=10", "threads=1", "accelerate=none"),
]


def side(name, values, variant="", **others):
    return {"name": name, "variant": variant, "values": values, **others}


@pytest.fixture
def row(monkeypatch):
    """Of two sides with one target, made of what was measured."""

    def of(*sides, measure="rates"):
        target = (2.0, 3.0) if measure == "rates" else (0.5, 0.25)
        made = Comparison("a title", "a note", {"peer": target}, {}, measure)
        monkeypatch.setitem(COMPARISONS, "x", made)
        (found,) = ratios({"x": {"sides": sides}})
        return found

    return of


# arithmetic


def test_ratios_are_taken_within_pairs(row):
    found = row(side("ours", [8, 2, 9]), side("peer", [4, 2, 3]))
    assert found[:4] == ["x", "8 steps/s", "peer: 3 steps/s", "2 (1 to 3)"]


@pytest.mark.parametrize(("measure", "chosen"), [("rates", "fast: 3"), ("seconds", "small: 2")])
def test_the_better_variant_of_a_peer_counts(measure, chosen, row):
    sides = [side("ours", [6, 6]), side("peer", [2, 2], "small"), side("peer", [3, 3], "fast")]
    assert row(*sides, measure=measure)[2] == f"peer, {chosen} steps/s"


@pytest.mark.parametrize(
    ("measure", "ours", "cells"),
    [
        ("rates", 3.0, ["≥ 2", "≥ 3", "aim"]),
        ("rates", 2.0, ["≥ 2", "≥ 3", "asked"]),
        ("rates", 1.9, ["≥ 2", "≥ 3", "no"]),
        ("seconds", 0.25, ["≤ 0.5", "≤ 0.25", "aim"]),
        ("seconds", 0.45, ["≤ 0.5", "≤ 0.25", "asked"]),
        ("seconds", 0.6, ["≤ 0.5", "≤ 0.25", "no"]),
    ],
)
def test_a_rate_reaches_its_target_from_below_and_a_cost_from_above(measure, ours, cells, row):
    assert row(side("ours", [ours]), side("peer", [1.0]), measure=measure)[4:] == cells


def test_numbers_keep_three_digits():
    assert [number(v) for v in (1234.5, 99.94, 0.12345)] == ["1,234", "99.9", "0.123"]


# our process


def test_a_process_of_ours_trains_about_as_long_as_it_is_told():
    found = answer({"overrides": TINY, "warmup": 10, "seconds": 0.05})
    assert found["variant"] == "1 thread, accelerate=none"
    assert min(found["rates"], found["cores"]) > 0.0


def test_what_is_trained_follows_from_the_rate_of_the_second_half(monkeypatch, tmp_path):
    asked, clock = [], iter([0.0, 2.0, 10.0, 13.0])

    class Runner:
        def __init__(self, *_):
            self.about = {"variant": "none"}
            self.close = lambda: asked.append("closed")

        def run(self, steps):
            asked.append(steps)
            return 10 * steps

    monkeypatch.setattr(contestant, "Loop", Runner)
    monkeypatch.setattr(contestant, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(contestant, "process_time", iter([0.0, 9.0, 20.0, 26.0]).__next__)
    found = contestant.trained({"overrides": [], "warmup": 7, "seconds": 3.0}, tmp_path)
    assert asked == [4, 3, 45, "closed"]  # 3 steps asked for are 30 in 2 seconds
    assert found == {"variant": "none", "rates": 450 / 3, "cores": 2.0}


def test_a_contestant_that_fails_is_one_line():
    with pytest.raises(Exception, match=r"-m bench.contestant failed, .*env\.id") as caught:
        answer({"overrides": ["env.id=Nowhere-v0"], "warmup": 1})
    assert "\n" not in str(caught.value)


def test_sides_take_turns_and_the_first_block_is_not_counted(monkeypatch):
    specs = {"ours": {"overrides": ["a=1", "b=2 c=3"]}, "SB3": {"threads": [1, 2]}}
    numbers = iter(range(9))

    def answers(spec):
        text = {"variant": "two"} if "overrides" in spec else {}
        return {"rates": next(numbers), "cores": spec.get("threads", 7), **text}

    monkeypatch.setattr("bench.measure.answer", answers)
    found = measured(Comparison("", "", {}, specs), 2, 0.5)
    assert [(one["name"], one["variant"], one["values"], one["cores"]) for one in found] == [
        ("ours", "two", [3, 6], [7, 7]),
        ("SB3", "1 thread", [4, 7], [1, 1]),
        ("SB3", "2 threads", [5, 8], [2, 2]),
    ]


def test_the_memory_of_a_process_is_its_own():
    code = (
        "import sys; sys.path.insert(0, '.'); from bench.measure import process\n"
        "for size in (50 * 2**20, 350 * 2**20):\n"  # above what this interpreter itself takes
        "    print(process(['-c', f\"block = b'x' * {size}\"])[1]['memory'])"
    )
    little, much = map(float, apart(code).splitlines())
    assert 290 < much - little < 310


# definitions


def test_our_settings_compose_and_the_peers_are_whole():
    sides = [side for one in COMPARISONS.values() for side in one.contestants]
    ours = [spec["overrides"] for *_, spec in sides if "overrides" in spec]
    assert len(ours) > len(COMPARISONS)
    for overrides in ours:
        train_config(overrides)
    for name, variant, spec in sides:
        if name in PEERS and "command" not in spec:
            assert {"algorithm", "env", "settings", "warmup"} <= set(spec)
            assert variant == f"{spec['threads']} thread{'s' * (spec['threads'] > 1)}"


def test_every_target_has_its_sides_and_asks_less_than_it_aims_for():
    for comparison in COMPARISONS.values():
        names = list(comparison.sides)
        assert (names[0], set(names[1:])) == ("ours", set(comparison.targets))
        for asked, aim in comparison.targets.values():
            assert (asked < aim) is (comparison.measure == "rates")


# report


MEASURED = {"date": "2026-01-02 03:04", "command": "python bench/bench.py", "revision": "abc",
            "load": 0.5, "machine": "a machine", "versions": {"torch": "2"}}  # fmt: skip


@pytest.fixture
def results():
    def sides(comparison):
        made = []
        for at, (name, variant, _) in enumerate(comparison.contestants, 1):
            values, cores = [12.0 / at, 10.0 / at], [1.25, 1.75]
            made.append(side(name, values, variant, cores=cores))
        return {"sides": made, "measured": MEASURED}

    return {name: sides(comparison) for name, comparison in COMPARISONS.items()}


def test_the_report_has_every_ratio_and_section(results):
    text = report.markdown(results)
    for name in COMPARISONS:
        assert re.search(rf"^## {name}: ", text, re.M)
    row = "| sac256 | 11 steps/s | SB3, 1 thread: 5.5 steps/s | 2 (2 to 2) | ≥ 2 | ≥ 3 | asked |"
    assert row in text
    assert "| SB3, 2 threads | 3.67 | 3.33 | 4 | 1.50 |" in text
    for rows in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"\|", row)) for row in rows.splitlines()}) == 1


def test_what_the_report_says_of_our_commands_can_be_typed(results):
    text = report.markdown(results)
    commands = re.findall(r"train\.py([^`\n|]*)[`\n|]", text)
    assert commands
    for command in commands:
        train_config([a for a in command.split() if a != "--help"])


def test_what_is_measured_is_reported_and_replaces_its_part_of_the_page(
    results, tmp_path, capsys, monkeypatch
):
    kept, page = tmp_path / "docs/performance/bench.json", tmp_path / "docs/performance.md"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"results": {k: results[k] for k in ("startup", "sac256")}}))
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "KEPT", kept)
    monkeypatch.setattr(bench, "needed", lambda chosen: [])
    monkeypatch.setattr(bench, "conditions", lambda arguments: MEASURED)
    sides = [side("ours", [0.1], cores=[1.0]), side("SB3", [1.0], cores=[1.0])]
    seconds = iter([9.0, 9.0, 0.1, 1.0])  # the first block is not counted
    monkeypatch.setattr(
        "bench.measure.process", lambda _: ("", {"seconds": next(seconds), "cores": 1.0})
    )
    assert bench.main(["only=startup", "blocks=1", "write=true", f"out={tmp_path / 'out'}"]) == 0
    row = "| startup | 0.1 s | SB3: 1 s | 0.1 (0.1 to 0.1) | ≤ 0.5 | ≤ 0.25 | aim |"
    assert row in capsys.readouterr().out
    startup = {"startup": {"sides": sides, "measured": MEASURED}}
    assert (tmp_path / "out/report.md").read_text() == report.markdown(startup)
    whole = {"sac256": results["sac256"], **startup}
    assert page.read_text() == report.markdown(whole, bench.PUBLISHED)
    assert json.loads(kept.read_text())["results"] == whole


@pytest.mark.parametrize(
    "name", ["sac256", "sac64", "a2c-same", "ppo-same", "memory", "sac256-gpu", "sac1024-gpu"]
)
def test_settings_that_both_sides_have_are_not_those_of_a_tuned_pair(name):
    for _, _, spec in COMPARISONS[name].contestants:
        if "overrides" in spec:
            assert pair_keys(compose.asked(spec["overrides"]).sources) in ([], ["total_steps"])


def test_the_page_is_that_of_what_is_kept():
    results = json.loads(bench.KEPT.read_text())["results"]
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page == report.markdown(results, bench.PUBLISHED)


# arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["only=sac265"], "did you mean sac256?"),
        (["blocks=0"], "blocks: must be an integer, >= 1"),
        (["form=x"], "form"),
        (["sac256"], "is not KEY=VALUE"),
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


def test_a_comparison_needs_the_libraries_of_its_peers():
    assert bench.needed([]) == []
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
