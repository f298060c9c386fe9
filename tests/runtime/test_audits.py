"""The audit of an agent in training: what is written, and the warning."""

import pytest
import torch

from common.seeding import derive
from data import Spec
from policies import TanhGaussian
from runtime.audits import at_states, audit
from runtime.logger import Logger
from tests.helpers import agent
from tests.runtime.test_logger import read


def run(tmp_path, learner, step=500):
    logger = Logger(tmp_path)
    obs = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    passed = audit(learner, obs, 0, step, logger)
    logger.close()
    return passed, read(tmp_path)


def test_scalars_and_a_figure_are_written(tmp_path, capsys):
    for name, spec in (("sac", Spec(3, 2, False)), ("a2c", Spec(3, 4, True))):
        passed, events = run(tmp_path / name, agent(name, spec))
        assert passed
        tags = ["verification/entropy_gap", "verification/normaliser", "verification/pit_ks"]
        assert sorted(events.Tags()["scalars"]) == tags
        assert events.Images("verification/actions")[0].step == 500
        assert abs(events.Scalars("verification/normaliser")[0].value - 1.0) < 0.1
    assert capsys.readouterr().err == ""


def test_a_wrong_density_is_one_warning_that_names_the_figure(tmp_path, capsys):
    class Wrong(TanhGaussian):
        def log_prob(self, action, latent=None):
            return super().log_prob(action, latent) + 0.5

    learner = agent("sac")
    learner.policy_class = Wrong
    passed, _ = run(tmp_path, learner)
    assert not passed
    warning = capsys.readouterr().err
    assert warning.startswith("warning: audit at step 500: ")
    assert "|normaliser - 1| 0.6" in warning
    assert "verification/actions" in warning
    assert warning.count("\n") == 1


def test_auditing_changes_nothing(tmp_path):
    learner = agent("a2c", Spec(3, 4, True))
    before = learner.generators["act"].get_state()
    run(tmp_path, learner)
    assert torch.equal(before, learner.generators["act"].get_state())


def test_what_is_written_is_the_worst_of_the_states(tmp_path):
    learner = agent("sac")
    obs = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    seeded = torch.Generator().manual_seed(derive(0, "audit", 500))
    findings = at_states(learner, obs, seeded)
    _, events = run(tmp_path, learner)
    worst = {"pit_ks": max(f.pit_ks for f in findings),
             "normaliser": 1 + max((f.normaliser - 1 for f in findings), key=abs),
             "entropy_gap": max((f.entropy_gap for f in findings), key=abs)}  # fmt: skip
    for tag, value in worst.items():
        assert events.Scalars(f"verification/{tag}")[0].value == pytest.approx(value, rel=1e-6)
    assert len({f.pit_ks for f in findings}) == 3
