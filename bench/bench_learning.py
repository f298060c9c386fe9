"""Learning, alone or beside Stable-Baselines3: `python bench/bench_learning.py only=cartpole-ppo`.

Ours and the peer learn a task with the same seeds and steps, in turn, and are evaluated on
environments and seeds that neither has seen. Writes TASK.json, a table and pictures. With
out=FOLDER it continues where it was stopped.
"""

import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from threading import Event, Lock

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.bench import INSTALL  # noqa: E402
from bench.commands import Row, Seeds, train_and_evaluate  # noqa: E402
from bench.contestant import PEERS, UNSEEN, Spec  # noqa: E402
from bench.measure import answer  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from runtime.console import number  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage.rundir import make_by_time, make_folder  # noqa: E402
from tools.shared import key, read_keys, save, table, table_row  # noqa: E402

EVALUATIONS, EPISODES = 20, 20


@dataclass(frozen=True)
class Task:
    """One row of the table; bench/tasks.yaml describes the fields."""

    overrides: tuple[str, ...]
    steps: int
    peer: Spec | None = None
    at_least: float | None = None
    seeds: int = 10
    seeds_that_reach: int | None = None
    episodes: int = 1000
    deterministic: bool = True


LISTED = yaml.safe_load((ROOT / "bench" / "tasks.yaml").read_text(encoding="utf-8"))
TASKS = {name: Task(**task) for name, task in LISTED.items()}
USAGE = f"""\
usage: python bench/bench_learning.py [only=TASK,...] [seeds=FIRST-LAST] [peer=false] [lanes=1]
                                      [out=FOLDER]
Ours and Stable-Baselines3, where a task has it, learn the same; a row of docs/results.md for each
task, and a picture. lanes=2 learns two seeds at once, on one thread each
tasks: {", ".join(TASKS)}"""


@dataclass(frozen=True)
class Options(Seeds):
    only: str = key(",".join(TASKS))
    peer: bool = key(True)
    lanes: int = key(1, ge=1)

    def check(self) -> None:
        super().check()
        self.require_names("only", [*TASKS])


def compare(arguments: list[str]) -> int:
    """Prints a row for each task, as soon as it is known."""
    given, _ = read_keys(Options, arguments)
    names = given.only.split(",")
    require(names, given.peer)
    out = make_folder(given.out) if given.out else make_by_time(Path("runs/learning"))
    print(table(HEADER, []), flush=True)
    for name in names:
        task = TASKS[name]
        chosen = given.chosen(task.seeds)
        sides = learn(task, chosen, given.peer, out / name, given.lanes)
        draw(name, sides, out / f"{name}.png")
        print(line(name, task, sides), flush=True)
    return 0


def require(names: list[str], with_peer: bool) -> None:
    """Raises ConfigError where the peer or an environment is missing: now, and not after hours."""
    from configs.compose import train_config
    from envs.envs import Envs

    peers = [TASKS[name].peer for name in names if with_peer]
    modules = {PEERS[peer.get("library", "SB3")] for peer in peers if peer}
    if missing := [module for module in sorted(modules) if find_spec(module) is None]:
        why = f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not installed"
        raise ConfigError(f"peer: {why}; {INSTALL}, or peer=false")
    for name in names:
        env = train_config(command(TASKS[name])).env
        Envs(env.id, 1, "sync", env.kwargs, seed=0).close()


def learn(
    task: Task, seeds: range, with_peer: bool, folder: Path, lanes: int = 1
) -> dict[str, list[Row]]:
    """Both sides' rows of the seeds; those in FOLDER.json are not learned again.

    Several lanes learn as many at once, on one thread each.
    """
    from configs.compose import train_config

    kept, writing, failed = folder.with_suffix(".json"), Lock(), Event()
    wanted = ("ours", "SB3") if with_peer and task.peer else ("ours",)
    sides: dict[str, list[Row]] = {side: [] for side in wanted}
    sides |= json.loads(kept.read_text()) if kept.exists() else {}
    threads = 1 if lanes > 1 else int(train_config(command(task)).threads)

    def one(side: str, seed: int) -> None:
        if failed.is_set():
            return
        try:
            own = folder / f"s{seed}"
            row = ours(task, seed, own, threads) if side == "ours" else theirs(task, seed, threads)
        except BaseException:
            failed.set()
            raise
        with writing:
            sides[side].append(row)
            kept.write_text(json.dumps(sides, indent=1) + "\n")

    known = {(side, row["seed"]) for side, rows in sides.items() for row in rows}
    with ThreadPoolExecutor(lanes) as pool:
        left = [(side, seed) for seed in seeds for side in wanted if (side, seed) not in known]
        for due in [pool.submit(one, *both) for both in left]:
            due.result()
    return {
        side: sorted((row for row in rows if row["seed"] in seeds), key=lambda row: row["seed"])
        for side, rows in sides.items()
    }


def command(task: Task) -> list[str]:
    """What `train.py` is given for every seed; alone it is evaluated when its settings say so."""
    every = task.steps // EVALUATIONS
    evaluation = [f"eval.every={every}", f"eval.episodes={EPISODES}"] if task.peer else []
    return [*task.overrides, f"total_steps={task.steps}", *evaluation]


def ours(task: Task, seed: int, run_dir: Path, threads: int) -> Row:
    """Trains and evaluates one seed with the project's own commands."""
    shutil.rmtree(run_dir, ignore_errors=True)  # of a process that was stopped
    overrides = [*command(task), f"threads={threads}"]
    evaluation = [f"episodes={task.episodes}", f"deterministic={json.dumps(task.deterministic)}"]
    if task.peer:
        evaluation.append(f"seed={UNSEEN + seed}")  # as the peer's
    row, trained = train_and_evaluate(overrides, seed, run_dir, *evaluation)
    return {**row, "training_seconds": trained["wall_seconds"], "threads": threads}


def theirs(task: Task, seed: int, threads: int) -> Row:
    """The same of Stable-Baselines3, with as many threads."""
    spec = {
        **(task.peer or {}),
        "seed": seed,
        "budget": task.steps,
        "every": task.steps // EVALUATIONS,
        "episodes": EPISODES,
        "final_episodes": task.episodes,
        "threads": threads,
    }
    started = time.perf_counter()
    row = answer(spec)
    return {"seed": seed, **row, "seconds": time.perf_counter() - started - row["seconds"]}


HEADER = [
    *("task", "steps", "asked", "ours: median return", "seeds that do (last 3 evaluations, too)"),
    *("s", "SB3: median return", "do", "s"),
]


def line(name: str, task: Task, sides: dict[str, list[Row]]) -> str:
    """One row of the table."""
    of_peer = sides.get("SB3", [])
    bound = task.at_least
    if bound is None and of_peer:
        bound = median(row["return_mean"] for row in of_peer)
    asked = f"≥ {task.at_least:g}" if task.at_least is not None else "above SB3"
    enough = task.seeds_that_reach or task.seeds
    cells = [name, f"{task.steps:,}", f"{asked} on {enough} of {task.seeds}"]
    for rows, least in ((sides["ours"], bound), (of_peer, task.at_least)):
        cells += summary(rows, least) if rows else ["", "", ""]
    return table_row(cells)


def summary(rows: list[Row], bound: float | None) -> list[str]:
    """Median return with its extremes, seeds that reach the bound, median seconds."""
    returns, reached = [row["return_mean"] for row in rows], ""
    if bound is not None:
        stayed = sum(all(value >= bound for _, value in row["curve"][-3:]) for row in rows)
        reached = f"{sum(one >= bound for one in returns)} of {len(rows)} ({stayed})"
    middle, low, high = map(number, (median(returns), min(returns), max(returns)))
    seconds = median(row["seconds"] for row in rows)
    return [f"{middle} ({low} to {high})", reached, f"{seconds:.1f}"]


def draw(name: str, sides: dict[str, list[Row]], path: Path) -> None:
    """The evaluations of every seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (side, rows), colour in zip(sides.items(), ("tab:blue", "tab:orange"), strict=False):
        for row in rows:
            label = side if row is rows[0] else None
            curve = zip(*row["curve"], strict=True)
            axes.plot(*curve, color=colour, alpha=0.6, linewidth=1, label=label)
    axes.set(xlabel="environment steps", ylabel=f"return of {EPISODES} episodes", title=name)
    axes.legend()
    save(figure, path, dpi=110)


main = partial(tool, USAGE, compare, bare=True)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
