"""Repeat a learning result of docs/results.md: `python bench/results.py figure=pendulum-sac`.

Trains every seed with `train.py`, evaluates each with `evaluate.py`, prints a Markdown table.
"""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.commands import Seeds, train_and_evaluate  # noqa: E402
from runtime.console import number  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_by_time, write_text  # noqa: E402
from tools.shared import key, read_keys, table  # noqa: E402


@dataclass(frozen=True)
class Figure:
    """One published figure."""

    overrides: tuple[str, ...]
    seeds: int
    episodes: int
    at_least: float
    deterministic: bool = True


FIGURES = {
    "cartpole-a2c": Figure((), 10, 1000, 475.0),
    "pendulum-sac": Figure(("env=pendulum", "agent=sac"), 10, 1000, -160.0),
    "pendulum-a2c-gaussian": Figure(("env=pendulum", "agent.policy=gaussian"), 5, 1000, -200.0),
    "pendulum-a2c-tanh": Figure(("env=pendulum", "agent.policy=tanh_gaussian"), 5, 1000, -200.0),
    "textbook-a2c": Figure(("+experiment=textbook_a2c",), 5, 100, 195.0, deterministic=False),
}

USAGE = f"""\
usage: python bench/results.py [figure={"|".join(FIGURES)}] [seeds=FIRST-LAST] [out=FOLDER]
Trains and evaluates every seed of a figure of docs/results.md, or of all, and prints its table;
all take half an hour."""


@dataclass(frozen=True)
class Options(Seeds):
    figure: str = key("all")

    def check(self) -> None:
        super().check()
        self.require_names("figure", ["all", *FIGURES])


def main(arguments: list[str]) -> int:
    return tool(USAGE, figures, arguments, bare=True)


def figures(arguments: list[str]) -> int:
    """Trains, evaluates and reports."""
    given, _ = read_keys(Options, arguments)
    out = make_by_time(Path(given.out or "runs/results"))
    named = given.figure.split(",")
    for name in (name for name in FIGURES if name in named or "all" in named):
        figure = FIGURES[name]
        chosen = given.chosen(figure.seeds)
        rows = [one(figure, seed, out / name / f"s{seed}") for seed in chosen]
        report(name, figure, rows)
        write_text(out / name / "summary.json", json.dumps(rows, indent=2) + "\n")
    return 0


def one(figure: Figure, seed: int, run_dir: Path) -> dict[str, float]:
    """Trains and evaluates one seed."""
    own = [f"episodes={figure.episodes}", f"deterministic={json.dumps(figure.deterministic)}"]
    row, trained = train_and_evaluate(figure.overrides, seed, run_dir, *own)
    return {
        "seed": seed,
        "return_mean": row["return_mean"],
        "return_sem": row["return_sem"],
        "last_three_min": min(value for _, value in row["curve"][-3:]),
        "steps": trained["steps"],
        "wall_seconds": trained["wall_seconds"],
        "steps_per_second": trained["steps_per_second"],
    }


def report(name: str, figure: Figure, rows: list[dict[str, float]]) -> None:
    """The Markdown table of one figure."""
    reached = sum(row["return_mean"] >= figure.at_least for row in rows)
    stayed = sum(row["last_three_min"] >= figure.at_least for row in rows)
    print(f"\n### {name}: `train.py {' '.join(figure.overrides)}`\n")
    values = []
    for row in rows:
        returns = [number(row[name]) for name in ("return_mean", "return_sem", "last_three_min")]
        times = [f"{row['wall_seconds']:.1f}", f"{row['steps_per_second']:.0f}"]
        values.append([str(row["seed"]), *returns, str(row["steps"]), *times])
    head = ["seed", "return", "s.e.", "lowest of last three evaluations"]
    print(table([*head, "steps", "seconds", "steps/s"], values))
    mean = statistics.median(row["return_mean"] for row in rows)
    wall = statistics.median(row["wall_seconds"] for row in rows)
    on = f"{reached}/{len(rows)} seeds, last three evaluations too on {stayed}/{len(rows)}"
    medians = f"median return {number(mean)}, median {wall:.1f} s"
    print(f"\nmean return >= {figure.at_least:g} on {on}; {medians}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
