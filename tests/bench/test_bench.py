"""The benchmark's arithmetic, its report and its arguments; of its processes, one of ours."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench import bench
from bench.benchmark import peers, races, report, studies
from bench.benchmark.comparisons import COMPARISONS, NAMES
from bench.benchmark.contestants import Comparison, Side, Target
from bench.benchmark.floor import Floor, by_onednn, flops, sac_update
from bench.benchmark.measure import Worker, median
from bench.benchmark.ours import Clocks
from bench.benchmark.ratios import compare, number, paired
from configs.compose import train_config

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("env=pendulum", "agent=sac", "agent.hidden=[8]", "agent.batch_size=4"),
    *("agent.learning_starts=5", "agent.updates_per_step=1", "total_steps=1000000000000"),
    *("log.every=10", "threads=1", "accelerate=none"),
]


def side(name, values, variant="", **others):
    return {"name": name, "variant": variant, "values": values, **others}


def comparison(kind="rates", lower=False):
    sides = (Side("ours", {}), Side("peer", {}))
    return Comparison("a title", kind, "steps/s", sides, {"peer": Target(2.0, 3.0)}, lower)


# arithmetic


def test_a_run_that_never_ends_counts_as_infinite_in_a_median():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([1.0, 2.0, 4.0, 8.0]) == 3.0
    assert median([1.0, None, 2.0]) == 2.0
    assert median([1.0, None, None]) == math.inf


def test_ratios_are_taken_within_pairs():
    assert paired([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]
    (ratio,) = compare("x", comparison(), [side("ours", [8, 2, 9]), side("peer", [4, 2, 3])])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 1.0, 3.0)
    assert ratio.reached == "asked"


@pytest.mark.parametrize(("lower", "chosen"), [(False, "fast"), (True, "small")])
def test_the_better_variant_of_a_peer_counts(lower, chosen):
    sides = [side("ours", [6, 6]), side("peer", [2, 2], "small"), side("peer", [3, 3], "fast")]
    (ratio,) = compare("x", comparison(lower=lower), sides)
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
    (ratio,) = compare("x", comparison("race", True), [side("ours", ours), side("peer", peer)])
    assert (ratio.value, ratio.reached) == (value, reached)


@pytest.mark.parametrize(("ours", "reached"), [(0.2, "aim"), (0.45, "asked"), (0.6, "no")])
def test_a_cost_has_to_stay_below_its_target(ours, reached):
    cost = Comparison("", "costs", "s", (), {"peer": Target(0.5, 0.25)}, True)
    (ratio,) = compare("x", cost, [side("ours", [ours]), side("peer", [1.0])])
    assert (ratio.reached, ratio.gain) == (reached, 1 / ours)


def test_a_peer_that_never_arrives_is_shown_as_such():
    (ratio,) = compare("x", comparison("race", True), [side("ours", [2.0]), side("peer", [None])])
    assert ratio.cells[1:4] == ["2 steps/s", "peer: never", "∞"]


def test_solved_is_reached_and_held():
    curve = [(n, 10.0 * n, score) for n, score in enumerate([1, 5, 2, 5, 5, 6, 1], 1)]
    assert races.solved(curve, 5, 0) == 20.0
    assert races.solved(curve, 5, 2) == 40.0
    assert races.solved(curve[:5], 5, 2) is None  # not yet held for two more
    assert races.solved(curve, 7, 0) is None


def test_numbers_keep_three_digits():
    assert [number(v) for v in (1234.5, 99.94, 0.12345, math.inf)] == [
        *("1,234", "99.9", "0.123", "never")
    ]


# the floor


def test_flops_against_a_count_by_hand():
    """Batch 5, one hidden layer of 3 units, 2 observations, 1 action, 2 critics.

    A pass of the critic is 2 x 2 x 5 x (3 x 3 + 3 x 1) = 240, of the actor 2 x 5 x (2 x 3 + 3 x 2)
    = 120. The critic runs three times. Its weights' gradient is as much as a pass, 240; the
    gradient of its hidden layer 2 x 2 x 5 x 3 = 60, of all its inputs 240. The actor runs twice;
    its weights' gradient is 120, that of its hidden layer 2 x 5 x 6 = 60.
    """
    assert flops(sac_update(5, [3], 2, 1, 2)) == 3 * 240 + (240 + 60) + 240 + 2 * 120 + 120 + 60


def test_the_update_of_the_benchmark_is_some_545_mflop():
    """16 products of 256 x 256 x 256, 537 MFLOP, and 9.04 of first and last layers."""
    assert flops(sac_update(256, [256, 256], 3, 1, 2)) == 16 * 2 * 256**3 + 9_043_968


class Counter(TorchDispatchMode):
    """Counts the matrix products' FLOP of whatever torch runs."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.flops += count(*args, **(kwargs or {}), out_val=out) if count else 0
        if func is torch.ops.mkldnn._linear_pointwise.default:
            self.flops += 2 * out.numel() * args[0].shape[-1]
        return out


def test_the_products_are_those_of_autograd():
    """torch counts the same in one real update of ours."""
    from data import Transition
    from runtime.build import make_parts

    sizes = ["agent.hidden=[7,6]", "agent.batch_size=5", "accelerate=none"]
    parts = make_parts(train_config([*TINY[:2], *sizes, "threads=1"]))
    batch = Transition(
        torch.randn(5, 3), torch.rand(5, 1), torch.randn(5), torch.randn(5, 3),
        torch.zeros(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool),
    )  # fmt: skip
    with Counter() as counter:
        parts.agent.update(batch)
    parts.close()
    assert counter.flops == flops(sac_update(5, [7, 6], 3, 1, 2))


def test_the_floor_runs_what_it_counts(tmp_path):
    threads = torch.get_num_threads()
    spec = {"batch": 5, "hidden": [7, 6], "obs_dim": 3, "action_dim": 2, "critics": 2}
    runner = Floor({**spec, "threads": threads}, tmp_path)
    with Counter() as counter:
        assert runner.run(3) == {"steps": 3, "updates": 3}
    assert counter.flops == 3 * runner.about["flops"] == 3 * flops(sac_update(**spec))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("onednn", [False, True])
def test_the_rate_of_a_square_product_is_counted_in_updates(onednn, tmp_path, monkeypatch):
    """64 x 64 x 64 is 2 x 64^3 = 524,288 operations: as many as so many updates."""
    monkeypatch.setattr(
        "runtime.accelerate.products.options", lambda: {"a pass": True} if onednn else {}
    )
    spec = {"batch": 5, "hidden": [7, 6], "obs_dim": 3, "action_dim": 2, "critics": 2}
    runner = Floor({**spec, "threads": torch.get_num_threads(), "square": 64}, tmp_path)
    asked = 3 * 524_288 / flops(sac_update(**spec))
    with Counter() as counter:
        done = runner.run(round(asked))
    assert counter.flops == 3 * 524_288
    assert runner.multiply is (by_onednn if onednn else torch.mm)
    assert done["steps"] == done["updates"] == pytest.approx(asked)


# clocks


def test_clocks_give_each_part_only_its_own_time():
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    clocks = Clocks(lambda: next(ticks))
    with clocks.part("outer"), clocks.part("inner"):
        pass
    assert clocks.spent == {"outer": (3.0 - 1.0) + (10.0 - 6.0), "inner": 6.0 - 3.0}


def test_what_happens_between_items_is_not_the_time_of_the_iterator():
    now = [0.0]

    class Owner:
        def items(self):
            for item in (1, 2):
                now[0] += 10.0
                yield item

    owner, clocks = Owner(), Clocks(lambda: now[0])
    clocks.wrap_iterator(owner, "items", "sample")
    for _ in owner.items():
        now[0] += 0.5
    assert clocks.spent["sample"] == 20.0


# our process


def test_a_worker_of_ours_trains_as_many_steps_as_it_is_told():
    with Worker({"kind": "loop", "overrides": TINY, "warmup": 10}) as worker:
        assert worker.about["threads"] == 1
        done = worker.run(7)
        assert (done["steps"], done["updates"]) == (7, 7)
        assert {"seconds", "cpu", "idle_cpu"} <= set(done)


def test_a_profile_names_every_part():
    with Worker({"kind": "profile", "overrides": TINY, "warmup": 10}) as worker:
        done = worker.run(10)
    assert set(done["parts"]) == set(studies.ORDER)
    with Worker({"kind": "around", "overrides": TINY, "warmup": 10}) as worker:
        done = worker.run(10)
    assert set(done["parts"]) == {"update", "the loop itself"}
    assert sum(done["parts"].values()) <= done["seconds"]


def test_an_update_alone_leaves_the_environments_where_they_are(tmp_path):
    from bench.benchmark.ours import Update

    runner = Update({"overrides": TINY, "warmup": 10}, tmp_path)
    weights = list(runner.parts.agent.modules["critic"].parameters())
    before = [weight.clone() for weight in weights]
    assert runner.run(3) == {"steps": 3, "updates": 3}
    runner.close()
    assert runner.step == 10
    assert not all(map(torch.equal, before, weights))


def test_a_worker_that_fails_is_one_line():
    with pytest.raises(Exception, match=r"a contestant ended, .*env\.id") as caught:
        Worker({"kind": "loop", "overrides": ["env.id=Nowhere-v0"], "warmup": 1})
    assert "\n" not in str(caught.value)


def test_the_memory_of_a_process_is_its_own():
    code = (
        "import sys; sys.path.insert(0, '.'); from bench.benchmark.measure import whole_process\n"
        "for size in (50 * 2**20, 350 * 2**20):\n"  # above what this interpreter itself takes
        "    print(whole_process({'command': ['-c', f\"block = b'x' * {size}\"]})['memory'])"
    )
    little, much = map(float, apart(code).splitlines())
    assert 290 < much - little < 310


# definitions


def specs():
    return [s.spec for c in COMPARISONS.values() for s in c.sides] + [
        spec for _, _, spec in studies.specs()
    ]


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

    parts = dict.fromkeys(studies.ORDER, 5.0) | {"update": 55.0}
    grown = {name: [[1, 10.0, 1e5], [2, 5.0, 2e5]] for name in studies.TITLES}
    return {name: sides(name) for name in COMPARISONS} | {
        "profile": {
            "steps": 9,
            "parts": {"64": parts},
            "around": {"64": 3.25},
            "measured": MEASURED,
        },
        "rule": {"rows": [[64, 1, 100.0, 300.0, 4.0, 24.0, 9.0]], "measured": MEASURED},
        "choices": {"rows": [["a choice", 80.0, 100.0, 1.25]], "measured": MEASURED},
        "scaling": {"grown": grown, "measured": MEASURED},
    }


def test_the_report_has_every_ratio_and_section(results):
    text = report.markdown(results, {"ratios": "there/ratios.png"})
    for name in NAMES:
        assert re.search(rf"^## {name}: ", text, re.M)
    assert "| sac256 | 11 steps/s | SB3, 1 thread: 5.5 steps/s | 2 (2 to 2) | ≥ 2 | ≥ 3 | asked |"
    assert "| solve-cartpole | never | SB3 A2C: never | 0 | ≥ 1 | ≥ 3 | no |" in text
    assert "(there/ratios.png)" in text
    assert "| a choice | 80 | 100 | 1.25 |" in text
    assert "* its products: all matrix products of one update" in text
    assert "* matrix rate: products of two 1,024×1,024 matrices" in text
    assert "| **all but the update** | 45.0 | 45.0 % |" in text
    assert "| **all but the update, without clocks** | 3.2 | under 250 |" in text
    assert "| SB3 PPO | never | 3 | 3 | 1 of 2 |" in text
    for rows in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"\|", row)) for row in rows.splitlines()}) == 1


def test_compiling_is_repaid_by_what_each_update_saves(results):
    """20 s over 1/100 - 1/300 s an update."""
    text = report.markdown(results, {})
    assert "| 2×64 | 1 | 100 | 300 | 20 s | 5 s | 3,000 | 750 |" in text


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
    drawn = {name: f"{name}.png" for name in ("ratios", "profile", "scaling")}
    drawn |= {name: f"{name}.png" for name in ("solve-cartpole", "solve-pendulum")}
    assert {path.stem for path in out.glob("*.png")} == set(drawn)
    assert (out / "report.md").read_text() == report.markdown(results, drawn)
    assert json.loads((out / "bench.json").read_text())["results"] == results


# arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["only=sac265"], "did you mean sac256?"),
        (["only=all,sac64"], "only: all goes alone; leave it or the others out"),
        (["blocks=0"], "blocks: must be at least 1"),
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
    found = peers.importlib.util.find_spec
    monkeypatch.setattr(
        peers.importlib.util, "find_spec", lambda wanted: None if wanted == module else found("os")
    )
    monkeypatch.chdir(tmp_path)
    assert bench.main([f"only={name}"]) == 2
    said = capsys.readouterr().err
    assert 'pip install -c constraints.txt ".[bench]"' in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ours_alone_needs_no_peer():
    assert bench.needed(["profile", "scaling", "sac256-floor"]) == []
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
