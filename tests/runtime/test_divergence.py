"""An update that is not finite leaves what is needed to see it again."""

import io
import json
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train
from common.tree import split
from data import Spec
from envs.envs import pack
from runtime.divergence import Recorded, leave_evidence, remedy
from runtime.launch.door import enter
from storage import checkpoint
from tests.helpers import agent, batch

ROOT = Path(__file__).resolve().parents[2]
COUNTING = ["env.id=tests.helpers:Counting-v0", "env.kwargs.show_episode=false",
            "eval.episodes=1", "checkpoint.every=20"]  # fmt: skip
RUNS = {
    "a2c": ["env.kwargs.reward=1e37", "agent.reward_scale=1e6", "agent.n_steps=5"],
    "ppo": [
        *("agent=ppo", "env.kwargs.reward=1e37", "agent.reward_scale=1e6", "agent.n_steps=16"),
        *("env.kwargs.choices=[3,2]", "agent.hidden=[8]"),
    ],
    "sac": [
        *("agent=sac", "env.kwargs.reward=3e38", "agent.learning_starts=30", "total_steps=300"),
        *("agent.hidden=[8]", "agent.batch_size=8"),
    ],
    "sac_discrete": [
        *("agent=sac_discrete", "env.kwargs.reward=3e38", "env.kwargs.choices=3"),
        *("agent.learning_starts=30", "total_steps=300", "agent.hidden=[8]", "agent.batch_size=8"),
    ],
}


def test_evidence_of_what_was_seen_late_does_not_claim_to_be_of_it(tmp_path):
    learner = agent("sac", Spec(3, 1, discrete=False), batch_size=8)
    learner.step = Recorded(learner.step)
    metrics = learner.update(batch(8, spec=Spec(3, 1, discrete=False)))
    assert leave_evidence(tmp_path, 7, learner, metrics).endswith("repeats it")
    said = leave_evidence(tmp_path, 7, learner, {})
    assert said.endswith("repeats the last update before it was seen")


def test_evidence_is_of_the_last_of_several_updates(tmp_path):
    learner = agent("sac", Spec(3, 1, discrete=False), batch_size=8)
    learner.step = Recorded(learner.step)
    good = batch(8, spec=Spec(3, 1, discrete=False))
    learner.update(good)
    reward = torch.full_like(good.reward, torch.nan)
    leave_evidence(tmp_path, 7, learner, learner.update(good._replace(reward=reward)))
    tensors = load_file(tmp_path / "divergence/state.safetensors")
    (kept,) = (tensor for name, tensor in tensors.items() if name.endswith("/reward"))
    assert kept.isnan().all()


def repeated_here(script, cwd):
    """What the script prints in this process, which has the libraries."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.chdir(cwd)
        patch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(script), run_name="__main__")
    return said.getvalue()


def repeated_elsewhere(script, cwd):
    done = subprocess.run([sys.executable, script], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", RUNS)
def test_the_evidence_repeats_the_same_number(name, tmp_path, capsys):
    run = tmp_path / "run"
    assert enter("train", train.run, [*COUNTING, *RUNS[name], f"run_dir={run}"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: training diverged: loss/")
    assert "repeat.py repeats it" in line
    folder = run / "divergence"
    shown = json.loads((folder / "ranges.json").read_text())
    repeat = repeated_elsewhere if name == "a2c" else repeated_here
    told = dict(row.split() for row in repeat(folder / "repeat.py", tmp_path).splitlines())
    wrong = {n for n, value in told.items() if value in ("nan", "inf", "-inf")}
    in_run = {
        n.removeprefix("/metrics/") for n, of in shown["tensors"].items()
        if n.startswith("/metrics/") and of["shape"] == [] and of["not_finite"]
    }  # fmt: skip
    assert wrong == in_run
    assert "loss/critic" in wrong
    first = line.split("diverged: ")[1].split(" is ")[0]
    assert first in wrong
    for metric, of in shown["tensors"].items():
        name_ = metric.removeprefix("/metrics/")
        if name_ in told and not of["not_finite"]:
            assert float(told[name_]) == pytest.approx(of["min"], rel=1e-6)
    assert len((folder / "repeat.py").read_text().splitlines()) <= 10


def test_a_gradient_alone_ends_a_run_whose_losses_are_finite(tmp_path, capsys):
    """The square of the error is still a number, the square of the gradient's norm none."""
    command = [argument.replace("3e38", "1.25e19") for argument in RUNS["sac"]]
    command.append("agent.batch_size=2")  # whose squares add up to less than 3.4e38
    run = tmp_path / "run"
    assert enter("train", train.run, [*COUNTING, *command, f"run_dir={run}"]) == 5
    assert capsys.readouterr().err.startswith("error: training diverged: grad_norm/critic is inf")
    ranges = json.loads((run / "divergence/ranges.json").read_text())["tensors"]
    assert not any(of["not_finite"] for name, of in ranges.items() if "metrics/loss" in name)


def test_the_checkpoint_before_it_is_good_and_the_weights_are_those_before_the_update(tmp_path):
    run = tmp_path / "run"
    assert enter("train", train.run, [*COUNTING, *RUNS["sac"], f"run_dir={run}"]) == 5
    state = checkpoint.load_newest(run)[1]
    weights = {n: t for n, t in load_file(run / "divergence" / "state.safetensors").items()
               if n.startswith("/agent/modules")}  # fmt: skip
    assert weights
    assert all(tensor.isfinite().all() for tensor in weights.values())
    saved = split(state["agent"])[1]
    # The very first update diverged, so that nothing has moved since the start.
    for name, tensor in weights.items():
        assert torch.equal(tensor, saved[name.removeprefix("/agent")])
    assert all(t.isfinite().all() for t in saved.values() if t.is_floating_point())


def test_a_folder_that_cannot_be_written_does_not_hide_the_divergence(
    tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runtime.divergence.write_bytes", full)
    run = tmp_path / "run"
    assert enter("train", train.run, [*COUNTING, *RUNS["a2c"], f"run_dir={run}"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be written" in line


@pytest.mark.parametrize(
    ("name", "words", "followed"),
    [
        ("a2c", "start again with agent.reward_scale=1e-20,", "agent.reward_scale=1e-20"),
        ("ppo", "start again with agent.reward_scale=1e-20,", "agent.reward_scale=1e-20"),
        ("sac", "start again with agent.reward_scale=1e-20,", "agent.reward_scale=auto"),
    ],
)
def test_large_rewards_are_named_as_the_cause_and_the_remedy_helps(
    name, words, followed, tmp_path, capsys
):
    given = [argument for argument in RUNS[name] if "reward" not in argument]
    run = [*COUNTING, *given, f"agent={name}", "total_steps=160", f"run_dir={tmp_path / 'run'}"]
    assert enter("train", train.run, [*run, "env.kwargs.reward=1e20"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert f"; rewards reach 1e+20, {words} the last checkpoint is good; python " in line
    assert enter("train", train.run, [*run, "env.kwargs.reward=1e20", followed]) == 0


def test_what_is_advised_follows_from_what_was_learned_from():
    rows = batch(8)
    said = remedy(agent("a2c", lr=0.03), rows)
    assert said == "start again with a lower agent.lr than 0.03"
    far = rows._replace(obs=-1e9 * rows.obs.abs().clamp_min(1.0))
    assert "agent.normalise_obs=true" in remedy(agent("sac"), far)
    assert "lower agent.lr" in remedy(agent("sac", normalise_obs=True), far)
    paid = rows._replace(reward=torch.full((8,), -2e6))
    assert "agent.reward_scale=5e-07" in remedy(agent("ppo"), paid)
    for scaled in ({"reward_scale": 1e-6}, {"reward_scale": "auto"}):
        assert "lower agent.lr" in remedy(agent("ppo", **scaled), paid)
    among = Spec(8, 2, True, images=((1, (2, 3, 1)),), bytes=((1, 7),))
    rows = batch(8, spec=among)
    assert "lower agent.lr" in remedy(agent("sac_discrete", among), rows)
    images = rows.obs[:, 8:].numpy()
    far = rows._replace(obs=torch.from_numpy(pack(np.full((8, 2), 3e5, np.float32), images)))
    assert "observations reach 3e+05," in remedy(agent("sac_discrete", among), far)
    alone = Spec(6, 2, True, images=((0, (2, 3, 1)),), bytes=((0, 6),))  # no number in them
    assert "lower agent.lr" in remedy(agent("sac_discrete", alone), batch(8, spec=alone))


def test_large_numbers_beside_an_image_are_named_as_the_cause(tmp_path, capsys):
    broken = ["env.id=tests.envs.test_envs:BesideImage-v0", "env.kwargs.value=1e38", "agent=a2c"]
    short = ["agent.n_steps=5", "env.num_envs=1", "total_steps=20", "eval.episodes=0",
             "agent.activation=relu"]  # fmt: skip
    assert enter("train", train.run, [*broken, *short, f"run_dir={tmp_path / 'run'}"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "observations reach 3e+38, start again with agent.normalise_obs=true" in line
