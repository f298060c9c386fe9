"""What a second process brings: `python bench/scaling.py`, a few minutes on an idle machine.

Trains the same with 1 and 2 processes in turn, one thread each, and prints medians of environment
steps per second, of all processes together. With `messages=true`: what an average over two costs.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.benchmark.calls import NUMBER, options  # noqa: E402
from configs.compose import quoted  # noqa: E402
from runtime.launch.door import tool  # noqa: E402

USAGE = """\
usage: python bench/scaling.py [messages=true] [repeats=3]
Environment steps per second of one process and of two that learn together, in turn.
messages=true: what an average over two costs instead"""
SIZES = (1, 1_000, 10_000, 100_000, 1_000_000)  # numbers in a message
CASES = {  # of `train.py`; the steps are those of each process
    "PPO, Pendulum, minibatches of 64": (["env=pendulum", "agent=ppo"], 12_288),
    "PPO, Pendulum, minibatches of 2,048": (
        [
            "env=pendulum",
            "agent=ppo",
            "env.num_envs=16",
            "agent.n_steps=512",
            "agent.batch_size=2048",
        ],
        65_536,
    ),
    "A2C, CartPole": (["env=cartpole"], 128_000),
    "SAC, Pendulum, 2x256": (
        ["env=pendulum", "agent=sac", "agent.hidden=[256,256]"],
        1_000,
    ),
}
COMMON = ["threads=1", "accelerate=none", "eval.episodes=1"]


def main(arguments: list[str]) -> int:
    """Measures; returns the exit code."""
    return tool(USAGE, measure, arguments, bare=True)


def measure(arguments: list[str]) -> int:
    """Prints a table of rates, or of what messages cost."""
    given = options(arguments, {"messages": "true|false", "repeats": NUMBER})
    if "RANK" in os.environ:
        messages()
        return 0
    if given.get("messages") == "true":
        together(2, [str(Path(__file__)), "messages=true"])
        return 0
    print("| what | 1 process, steps/s | 2 processes | ratio |\n|---|---|---|---|")
    for name, (settings, steps) in CASES.items():
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(int(given.get("repeats", 3))):
            for count, found in rates.items():
                found.append(rate(count, [*settings, *COMMON], steps * count))
        one, two = (statistics.median(found) for found in rates.values())
        print(f"| {name} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |", flush=True)
    return 0


def rate(count: int, settings: list[str], steps: int) -> float:
    """Environment steps per second of training, in so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        often = [f"total_steps={steps}", f"eval.every={steps}", f"run_dir={quoted(run)}"]
        together(count, [str(ROOT / "train.py"), *settings, *often])
        return float(json.loads((run / "result.json").read_text())["steps_per_second"])


def together(count: int, command: list[str]) -> None:
    """Runs the command in so many processes that know of each other, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count),
               "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}  # fmt: skip
    quiet = None if command[-1] == "messages=true" else subprocess.DEVNULL
    processes = [
        subprocess.Popen(
            [sys.executable, *command], stdout=quiet,
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(max(codes))


def messages() -> None:
    """Prints the time of an average over two processes, for messages of several sizes."""
    import torch

    from runtime.launch.ranks import meet

    torch.set_num_threads(1)
    ranks = meet("cpu")
    if ranks.first:
        print("| numbers in a message | median, us |\n|---|---|")
    for size in SIZES:
        numbers, spent = [torch.ones(size)], []
        for _ in range(200):
            started = time.perf_counter()
            ranks.average(numbers)
            spent.append(time.perf_counter() - started)
        if ranks.first:
            print(f"| {size:,} | {1e6 * statistics.median(spent):,.0f} |")
    ranks.leave()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
