"""What was measured as Markdown; everything in it comes from bench.json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.benchmark.comparisons import COMPARISONS
from bench.benchmark.contestants import Comparison, Spec
from bench.benchmark.measure import Result, median
from bench.benchmark.ratios import (
    HEADER,
    NEVER,
    Ratio,
    compare,
    label,
    number,
    table,
)
from bench.benchmark.studies import ORDER, TITLES

Results = Mapping[str, Result]
INTRODUCTION = """\
Each contestant is a process of its own, warmed up before anything is measured (imports,
compilation, first updates). The contestants of a comparison then work in turn, A B A B ..., in
blocks of a few seconds; the others wait for their input. Figures are medians over the blocks. A
ratio is the median over the pairs of blocks that follow one another, with the smallest and the
largest of them: what slows a shared machine for a while slows both of a pair. Of a peer that is
measured with one and with two threads, the better one counts. Rates are those of learning, without
evaluations and saving."""
AROUND = 250.0  # microseconds asked of all but the update, at most


def ratios(results: Results) -> list[Ratio]:
    """All ratios, in the order of the comparisons."""
    return [
        ratio
        for name, comparison in COMPARISONS.items()
        if name in results
        for ratio in compare(name, comparison, results[name]["sides"])
    ]


def markdown(results: Results, pictures: Mapping[str, str], more: Sequence[str] = ()) -> str:
    """The report.

    Args:
        results: name of a comparison or study -> what was measured.
        pictures: name -> path of the picture, relative to the report.
        more: paragraphs after the introduction.
    """
    parts = ["# Performance", *conditions(results), INTRODUCTION, *more]
    if any(name in results for name in COMPARISONS):
        parts.append(table(HEADER, [ratio.cells for ratio in ratios(results)]))
        parts += picture("ratios", "Every ratio, with what was asked and aimed for", pictures)
    for name, comparison in COMPARISONS.items():
        if name in results:
            parts += section(name, comparison, results[name], pictures)
    if "profile" in results:
        parts += profile_section(results["profile"], pictures)
    if "rule" in results:
        parts += rule_section(results["rule"])
    if "choices" in results:
        parts += choices_section(results["choices"])
    if "scaling" in results:
        parts += scaling_section(results["scaling"], pictures)
    return "\n\n".join(parts) + "\n"


def conditions(results: Results) -> list[str]:
    """Machine, versions, dates, and the commands that repeat it."""
    measured = [result["measured"] for result in results.values()]
    machines = unique(f"{m['machine']}; {versions(m['versions'])}" for m in measured)
    parts = [f"Measured on {machine}." for machine in machines]
    rows = [
        [f"`{name}`", m["date"], m["revision"][:12], f"{m['load']:.1f}", f"`{m['command']}`"]
        for name, m in ((name, result["measured"]) for name, result in results.items())
    ]
    parts.append(table(["what", "date", "commit", "load before", "command"], rows))
    return parts


def versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def unique(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))


def picture(name: str, says: str, pictures: Mapping[str, str]) -> list[str]:
    return [f"![{says}]({pictures[name]})"] if name in pictures else []


def section(
    name: str, comparison: Comparison, result: Result, pictures: Mapping[str, str]
) -> list[str]:
    """One comparison: what it is, the sides, and their settings."""
    sides = result["sides"]
    specs = {(side.name, side.variant): side.spec for side in comparison.sides}
    settings = unique(
        f"* {side.name}: {told(specs[side.name, side.variant])}" for side in comparison.sides
    )
    return [
        f"## {name}: {comparison.title}",
        comparison.note,
        side_table(comparison, sides),
        *waiting(sides),
        *picture(name, f"{comparison.title}: every seed", pictures),
        "\n".join(settings),
    ]


def side_table(comparison: Comparison, sides: Sequence[Result]) -> str:
    """Median and extremes of each side; cores that it used, or seeds that it solved."""
    header = ["side", f"median, {comparison.unit}", "lowest", "highest"]
    extra = {"rates": "cores used", "race": "seeds that got there"}.get(comparison.measure)
    rows = []
    for side in sides:
        values = side["values"]
        finite = [value for value in values if value is not None]
        ends = [number(min(finite)), number(max(finite))] if finite else [NEVER, NEVER]
        row = [label(side), number(median(values)), *ends]
        if comparison.measure == "rates":
            row.append(f"{median([b['cpu'] / b['seconds'] for b in side['blocks']]):.2f}")
        if comparison.measure == "race":
            row.append(f"{len(finite)} of {len(values)}")
        rows.append(row)
    return table([*header, extra] if extra else header, rows)


def waiting(sides: Sequence[Result]) -> list[str]:
    """What contestants used of the processor while another one worked."""
    idle = [block["idle_cpu"] for side in sides for block in side.get("blocks", [])]
    if not idle:
        return []
    return [f"While waiting, none used more than {1000 * max(idle):.1f} ms of a processor a round."]


def told(spec: Spec) -> str:
    """The settings of a side, in words that can be typed."""
    if "command" in spec:
        return f"`python {' '.join(spec['command'])}`"
    if "overrides" in spec:
        return f"`train.py {' '.join(spec['overrides'])}`".replace(" `", "`")
    if size := spec.get("square"):
        return f"products of two {size:,}×{size:,} matrices, nothing else"
    if spec["kind"] == "floor":
        return "all matrix products of one update, none of its element-wise work"
    settings = ", ".join(f"{name}={value!r}" for name, value in spec["settings"].items())
    budget = f", at most {spec['budget']:,} steps" if "budget" in spec else ""
    return f"`{spec['algorithm']}({settings})`, environments: {spec['num_envs']}{budget}"


def profile_section(result: Result, pictures: Mapping[str, str]) -> list[str]:
    """Where each microsecond goes."""
    header = ["part"]
    for width in result["parts"]:
        header += [f"2×{width}, µs", "share"]
    shown = {part: {part} for part in ORDER}
    shown |= {"**all but the update**": set(ORDER) - {"update"}, "**all**": set(ORDER)}
    rows = []
    for says, chosen in shown.items():
        row = [says]
        for parts in result["parts"].values():
            spent = sum(parts[part] for part in chosen)
            row += [f"{spent:.1f}", f"{100 * spent / sum(parts.values()):.1f} %"]
        rows.append(row)
    row = ["**all but the update, without clocks**"]
    for spent in result["around"].values():
        row += [f"{spent:.1f}", f"{'under' if spent < AROUND else 'over'} {AROUND:.0f}"]
    rows.append(row)
    return [
        "## profile: where the time of a SAC step goes",
        f"SAC on Pendulum with one update of a batch of 256 per step, {result['steps']:,} steps, "
        "with a clock around each part; a part does not contain the parts inside it (the update "
        "reads its batch out of the replay, sampling only chooses the rows), and the clocks "
        "themselves lie in what surrounds them. The last row is of blocks between those, in "
        f"a process with one clock, around the update; under {AROUND:.0f} are asked of it. Medians "
        "of blocks.",
        table(header, rows),
        *picture("profile", "Microseconds of each part of a step", pictures),
    ]


CHOSEN = """\
Compiled updates of 2×256 units, batch 256, 17 numbers seen, 6 actions (HalfCheetah's sizes), each
beside a process with plain SAC, in turn; the ratio is the median over pairs of blocks. Where the
actor learns every second update, those without it are counted, too."""
RULE = """\
`accelerate=auto` takes one CUDA graph where a GPU is named. On a CPU it compiles a run from 20,000
updates on (of PPO: minibatches; 40,000 where `agent.policy_delay` makes two graphs), if there is a
C++ compiler, torch is 2.13 or newer and one process learns: 1.3 to 6.1 times the updates after
which a first compilation is repaid, for what is compiled must also be loaded. `threads=auto` is one
thread while batch (A2C: 256) times width squared is below 4e6, else the cores, up to four. Measured
are two widths of SAC, on the cores named above. Both ask the configuration, never a clock:
compiled and eager updates round differently, so a choice that depended on how busy the machine is
could not be repeated. "Repaid after" is the number of updates whose savings equal the time that
compiling takes, the first time and once the compiled code is on the disk."""


def rule_section(result: Result) -> list[str]:
    """What compiling costs and saves."""
    rows = []
    for width, threads, eager, compiled, *starts in result["rows"]:
        saved = 1.0 / eager - 1.0 / compiled
        repaid = [(start - starts[0]) / saved if saved > 0 else math.inf for start in starts[1:]]
        rows.append([
            f"2×{width}", f"{threads}", number(eager), number(compiled),
            *(f"{start - starts[0]:.0f} s" for start in starts[1:]), *map(number, repaid),
        ])  # fmt: skip
    header = ["units", "threads", "eager, updates/s", "compiled", "compiling, first time",
              "from the disk", "repaid after", "from the disk"]  # fmt: skip
    return ["## rule: what compiling costs and saves", RULE, table(header, rows)]


def choices_section(result: Result) -> list[str]:
    """What each choice costs."""
    rows = [[name, number(rate), number(plain), number(ratio)]
            for name, rate, plain, ratio in result["rows"]]  # fmt: skip
    header = ["choice", "updates/s", "SAC's beside it", "an update takes, times SAC's"]
    return ["## choices: what each costs an update", CHOSEN, table(header, rows)]


def scaling_section(result: Result, pictures: Mapping[str, str]) -> list[str]:
    """How cost grows."""
    parts = ["## scaling: how cost grows", *picture("scaling", "Cost against size", pictures)]
    for name, rows in result["grown"].items():
        what = "environment steps" if name == "environments" else "updates"
        shown = [[f"{int(size):,}", number(rate), number(cost)] for size, rate, cost in rows]
        parts += [f"{TITLES[name]}:", table([name, f"{what}/s", "µs each"], shown)]
    return parts
