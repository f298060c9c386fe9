"""What README and docs say can be typed, opened and found."""

import re
import shlex
from pathlib import Path

import pytest

from configs.compose import train_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text() for page in PAGES}


def commands(pattern):
    found = [m for text in TEXT.values() for m in re.findall(pattern, text)]
    return sorted({m.split("  #")[0].strip() for m in found})


@pytest.mark.parametrize("command", commands(r"train\.py([^`\n|]*)[`\n|]"))
def test_every_train_command_composes(command):
    arguments = [a for a in shlex.split(command) if a != "--help" and "ANY-v0" not in a]
    if not any(a.endswith("=RUN_DIR") for a in arguments):
        train_config(arguments)


@pytest.mark.parametrize("target", commands(r"`?make ([a-z-]+)"))
def test_every_make_target_exists(target):
    if target in ("things", "sure"):
        return
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(
    ("page", "link"),
    [(n, m) for n, text in TEXT.items() for m in re.findall(r"\]\(([^)#:]+)\)", text)],
)
def test_every_link_leads_somewhere(page, link):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    assert (folder / link).exists()


def test_every_tag_that_a_short_run_writes_is_explained(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from runtime.door import enter
    from train import run

    explained = TEXT["logging.md"]
    for number, arguments in enumerate(
        [
            ["total_steps=400", "env.num_envs=4", "agent.n_steps=5"],
            ["env=pendulum", "agent=sac", "total_steps=300", "agent.learning_starts=200",
             "agent.hidden=[8,8]"],
        ]
    ):  # fmt: skip
        path = tmp_path / str(number)
        assert enter("train", run, [*arguments, "eval.episodes=2", f"run_dir={path}"]) == 0
        events = EventAccumulator(str(path))
        events.Reload()
        tags = events.Tags()
        for tag in [*tags["scalars"], *tags["histograms"]]:
            last = tag.rsplit("_", 1)[-1]
            assert f"`{tag}`" in explained or f"`_{last}`" in explained, tag
        assert "policy/entropy" in tags["scalars"]
        assert "policy/log_prob_mean" in tags["scalars"]
        assert {"policy/log_prob", "policy/action"} <= set(tags["histograms"])
        steps = [event.step for event in events.Scalars("eval/return_mean")]
        assert steps[-1] == max(e.step for e in events.Scalars("policy/entropy"))
