"""What was measured as Markdown: medians, paired ratios, targets. All of it is in bench.json."""

from collections.abc import Mapping, Sequence
from operator import ge, le
from statistics import median

from bench.measure import COMPARISONS, Comparison, Result, Spec
from tools.shared import table

Results = Mapping[str, Result]
INTRODUCTION = """\
Each block is a process of its own, which is warmed up (imports, compilation, first updates) and
then trains for a few seconds. The sides of a comparison take turns, A B A B ..., and figures are
medians over the blocks. A ratio is the median over pairs of consecutive blocks, with the smallest
and the largest of them, so that temporary load on a shared machine affects both blocks of a pair.
If a peer is measured with one and with two threads, the better result counts. Rates are those of
training, without evaluations and saving."""
HEADER = ["comparison", "ours", "peer", "ratio", "asked", "aim", "reached"]


def ratios(results: Results) -> list[list[str]]:
    """A row for each peer: ours, the first side, against the better variant of the peer."""
    rows = []
    for name, result in results.items():
        comparison, (ours, *others) = COMPARISONS[name], result["sides"]
        sign, better, holds = ("≥", max, ge) if comparison.measure == "rates" else ("≤", min, le)
        for peer, (asked, aim) in comparison.targets.items():
            variants = [side for side in others if side["name"] == peer]
            best = better(variants, key=lambda side: float(median(side["values"])))
            # what slows the machine for a while slows both of a pair
            pairs = [one / two for one, two in zip(ours["values"], best["values"], strict=True)]
            value, low, high = middle_and_ends(pairs)
            reached = "aim" if holds(median(pairs), aim) else "asked"
            rows.append(
                [
                    name,
                    f"{number(median(ours['values']))} {comparison.unit}",
                    f"{label(best)}: {number(median(best['values']))} {comparison.unit}",
                    f"{value} ({low} to {high})",
                    *(f"{sign} {bound:g}" for bound in (asked, aim)),
                    reached if holds(median(pairs), asked) else "no",
                ]
            )
    return rows


def label(side: Result) -> str:
    return f"{side['name']}, {side['variant']}" if side["variant"] else str(side["name"])


def number(value: float) -> str:
    """Three digits, whole numbers from 100 on with separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def middle_and_ends(values: Sequence[float]) -> list[str]:
    return [number(one) for one in (median(values), min(values), max(values))]


def markdown(results: Results, more: Sequence[str] = ()) -> str:
    """The report, with more paragraphs after the introduction."""
    measured = {name: result["measured"] for name, result in results.items()}
    machines = {f"{one['machine']}; {versions(one['versions'])}": None for one in measured.values()}
    rows = [
        [f"`{name}`", m["date"], m["revision"][:12], f"{m['load']:.1f}", f"`{m['command']}`"]
        for name, m in measured.items()
    ]
    parts = [
        "# Performance",
        *(f"Measured on {machine}." for machine in machines),
        table(["what", "date", "commit", "load before", "command"], rows),
        INTRODUCTION,
        *more,
        table(HEADER, ratios(results)),
    ]
    for name, result in results.items():
        parts += section(name, COMPARISONS[name], result["sides"])
    return "\n\n".join(parts) + "\n"


def versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def section(name: str, comparison: Comparison, sides: Sequence[Result]) -> list[str]:
    """One comparison: what it is, the sides with the cores that each used, and their settings."""
    header, rows = ["side", f"median, {comparison.unit}", "lowest", "highest"], []
    for side in sides:
        rows.append([label(side), *middle_and_ends(side["values"])])
        if "cores" in side:
            rows[-1].append(f"{median(side['cores']):.2f}")
    lines = [f"* {side}: {described(spec)}" for side, _, spec in comparison.contestants]
    return [
        f"## {name}: {comparison.title}",
        comparison.note,
        table([*header, "cores used"][: len(rows[0])], rows),
        "\n".join(dict.fromkeys(lines)),
    ]


def described(spec: Spec) -> str:
    """The settings of a side, in words that can be typed."""
    if "command" in spec:
        return f"`python {' '.join(spec['command'])}`"
    if "overrides" in spec:
        return f"`train.py {' '.join(spec['overrides'])}`"
    settings = ", ".join(f"{name}={value!r}" for name, value in spec["settings"].items())
    return f"`{spec['algorithm']}({settings})`, environments: {spec.get('num_envs', 1)}"
