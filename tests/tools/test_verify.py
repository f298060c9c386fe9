"""The gallery holds for the right code, and for no wrong formula that is planted in it."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import policies
from tools import verify
from tools.gallery import controls, densities
from tools.gallery.densities import DensitySection
from tools.gallery.functions import TanhAtanh
from tools.gallery.report import Check, explained, lines, rejection, summary
from tools.gallery.settings import SECTIONS
from tools.shared import new_folder

ROOT = Path(__file__).resolve().parents[2]
MISTAKES = sorted(controls.WRONG)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """(exit code, folder) of the whole gallery on fewer draws."""
    folder = tmp_path_factory.mktemp("gallery")
    return verify.main(["samples=1000", f"out={folder}"]), folder


def rows_of(folder):
    return json.loads((folder / "report.json").read_text())["checks"]


def test_everything_holds_for_seed_0(gallery):
    code, folder = gallery
    assert code == 0
    rows = rows_of(folder)
    assert {row["section"] for row in rows} == set(SECTIONS)
    assert all(row["passed"] for row in rows)
    assert all(isinstance(row["figure"], float | int) for row in rows)


def test_every_section_with_a_density_has_all_kinds_of_check(gallery):
    for section in SECTIONS:
        said = " ".join(row["name"] for row in rows_of(gallery[1]) if row["section"] == section)
        assert "50 digits" in said or section == "log_softmax"
        if section not in ("log_exp", "tanh_atanh", "log_softmax", "action_mask", "entropy"):
            for part in ("KS of", "integral", "log_prob and log_pi", "gradients", "the terms"):
                assert part in said, (section, part)
        assert ("without latent" in said) == section.startswith("tanh"), section


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_run_and_rejected(gallery, mistake):
    found = [row for row in rows_of(gallery[1]) if f"control {mistake}:" in row["name"]]
    assert found
    assert all(row["passed"] and "NOT" not in row["name"] for row in found)


def test_the_report_and_its_pictures(gallery):
    folder = gallery[1]
    assert not [*folder.glob("**/*tfevents*")]  # which TensorBoard would take for a run
    text = (folder / "report.md").read_text()
    for section in SECTIONS:
        assert f"## {section}\n" in text
        assert f"({section}.png)" in text
        assert (folder / f"{section}.png").stat().st_size > 10_000
    assert "FAIL" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in rows)


# planted mistakes


def plant(monkeypatch, policy, mistake):
    """Gives the real class the wrong formula; its sampler stays."""
    squashed = policy in (policies.TanhGaussian, policies.TanhFullGaussian)

    def formula(self):
        made = self.parameters_given
        return controls.WRONG[mistake](*made, squashed=squashed)

    before = policy.__init__

    def remember(self, mean, scale):
        before(self, mean, scale)
        self.parameters_given = mean, scale

    monkeypatch.setattr(policy, "__init__", remember)
    monkeypatch.setattr(
        policy, "log_prob", lambda self, action, latent=None: formula(self).log_prob(action, latent)
    )
    monkeypatch.setattr(
        policy,
        "rsample_with_log_prob",
        lambda self, noise=None: formula(self).rsample_with_log_prob(noise),
    )


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(
    ("section", "policy"),
    [("tanh_normal", "TanhGaussian"), ("tanh_full", "TanhFullGaussian")],
)
def test_a_mistake_planted_in_the_policy_is_found(monkeypatch, section, policy, mistake):
    plant(monkeypatch, getattr(policies, policy), mistake)
    rows = DensitySection(section, SECTIONS[section](samples=500)).own(0)
    assert not all(row.passed for row in rows)


def test_a_planted_mistake_makes_the_command_fail(monkeypatch, tmp_path, capsys):
    plant(monkeypatch, policies.TanhGaussian, "jacobian_added")
    assert verify.main(["section=tanh_normal", "samples=500", f"out={tmp_path}"]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert "FAIL" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False


def test_a_sampler_that_is_too_wide_is_found(monkeypatch):
    before = policies.Gaussian.sample
    monkeypatch.setattr(
        policies.Gaussian, "sample", lambda self, noise: before(self, noise * 1.2 + 0.1)
    )
    rows = DensitySection("normal_log_prob", SECTIONS["normal_log_prob"]()).drawn(0)
    assert not all(row.passed for row in rows)


def test_terms_that_do_not_add_up_are_found(monkeypatch):
    before = policies.TanhGaussian.terms
    monkeypatch.setattr(
        policies.TanhGaussian,
        "terms",
        lambda self, noise: {
            name: part + (name == "scale") * 1e-3 for name, part in before(self, noise).items()
        },
    )
    rows = DensitySection("tanh_normal", SECTIONS["tanh_normal"](samples=500)).own(0)
    failed = [row.name for row in rows if not row.passed]
    assert len(failed) == 4
    assert all("terms" in name for name in failed)


def test_a_term_under_another_name_is_found(monkeypatch):
    before = policies.Gaussian.terms
    monkeypatch.setattr(
        policies.Gaussian,
        "terms",
        lambda self, noise: {name.upper(): part for name, part in before(self, noise).items()},
    )
    rows = DensitySection("normal_log_prob", SECTIONS["normal_log_prob"](samples=500)).own(0)
    assert [row.figure for row in rows if not row.passed] == [math.inf] * 2


def test_an_inverse_that_loses_digits_is_found(monkeypatch):
    monkeypatch.setattr(torch, "atanh", lambda action: 0.999 * controls.atanh_by_logs(action))
    rows = DensitySection("tanh_normal", SECTIONS["tanh_normal"](samples=500)).own(0)
    (failed,) = [row.name for row in rows if not row.passed]
    assert "without latent" in failed


@pytest.mark.parametrize("mean", ["6.9", "-6", "0", "20"])
@pytest.mark.parametrize("std", ["0.001", "0.3", "3"])
def test_the_bound_without_latent_is_honest(mean, std):
    settings = SECTIONS["tanh_normal"](mean=float(mean), std=float(std), samples=500)
    rows = [row for row in DensitySection("tanh_normal", settings).own(0) if "without" in row.name]
    assert len(rows) == (mean != "20")
    assert all(row.passed for row in rows)


def test_an_action_that_is_not_tanh_of_its_latent_is_found(monkeypatch):
    before = policies.TanhGaussian.sample

    def sample(self, noise):
        action, latent = before(self, noise)
        return action * 0.999, latent

    monkeypatch.setattr(policies.TanhGaussian, "sample", sample)
    rows = DensitySection("tanh_normal", SECTIONS["tanh_normal"](samples=500)).own(0)
    assert [row.name for row in rows if not row.passed] == ["action - tanh(latent)"]


def test_a_planted_log_determinant_is_found(monkeypatch):
    monkeypatch.setattr("policies.gaussian.log_det_tanh", controls.log_det_epsilon)
    rows = TanhAtanh("tanh_atanh", SECTIONS["tanh_atanh"]()).own(0)
    assert not all(row.passed for row in rows)


def test_a_right_formula_is_not_rejected_by_any_control(monkeypatch):
    """What the wrong formulas are made from is right in every part that they do not change."""
    monkeypatch.setitem(controls.WRONG, "right", controls.Formula)
    for section in ("tanh_normal", "tanh_full", "diagonal_log_prob"):
        (subject,) = DensitySection(section, SECTIONS[section](samples=500)).subjects(0)
        row = densities.control(subject, "right", [*densities.TESTS])
        assert (row.figure, row.passed) == (0, False)


# the door


def test_the_real_command_from_anywhere_and_its_folders(tmp_path):
    command = [sys.executable, str(ROOT / "tools/verify.py"), "section=log_exp"]
    safe = os.environ | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=safe
    )
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "runs" / "verify").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}", folder.name)
    assert "log_exp.png" in os.listdir(folder)


def test_a_section_is_one_line_with_its_worst_check_and_all_that_fails():
    right = [Check("normal", "far", 1e-9, 1e-6), Check("normal", "p", 2e-6, 1e-6, ">=")]
    controls = [rejection("normal", "epsilon", ["pit"], ["pit"])]
    head, shown = lines([*right, *controls], verbose=False, controls=True)
    assert head.startswith("section               result  checks  wrong formulas  worst      bound")
    assert re.fullmatch(r"normal +pass +2 +1 of 1 +2e-06 +>= 1e-06 +p", shown)
    assert len(lines([*right, *controls], verbose=True, controls=True)) == 5
    head, shown = lines(right, verbose=False, controls=False)
    assert head.startswith("section               result  checks  worst      bound")
    assert re.fullmatch(r"normal +pass +2 +2e-06 +>= 1e-06 +p", shown)
    for wrong in (rejection("normal", "epsilon", ["pit"], []), Check("normal", "x", math.nan, 1)):
        _, shown, failed = lines([*right, wrong], verbose=False, controls=True)
        assert shown.split()[1] == "FAIL"
        assert failed.split()[0] == "FAIL"
        assert failed.endswith(wrong.name)
    assert [line[:4] for line in explained("KS, p-value")] == ["p-va", "KS: "]
    assert explained("KSQ") == []
    (line,) = explained("|E[q / exp(log_pi)] - 1|, component 0 low")
    assert line.startswith("E[q / exp(log_pi)]: mean of ")


def test_checks_and_wrong_formulas_are_counted_apart():
    held, off = Check("normal", "far", 1e-9, 1e-6), Check("normal", "near", 1e-3, 1e-6)
    seen, missed = (rejection("normal", "epsilon", ["pit"], by) for by in (["pit"], []))
    assert summary([held, held]) == "2 of 2 checks hold"
    assert summary([held, seen]) == "1 of 1 checks hold, 1 of 1 wrong formulas are rejected"
    said = "1 of 2 checks hold, 1 of 2 wrong formulas are rejected: FAILED"
    assert summary([held, off, seen, missed]) == said
    assert lines([held], False, True)[1].split()[:4] == ["normal", "pass", "1", "none"]


def test_a_folder_in_use_gets_a_suffix_and_an_empty_one_is_taken(tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine").write_text("")
    assert new_folder(str(used), "") == tmp_path / "used-2"
    assert new_folder(str(tmp_path / "used-2"), "") == tmp_path / "used-2"


def test_other_settings_are_what_is_checked_and_written(tmp_path):
    arguments = ["section=tanh_normal", "mean=-9", "std=0.5", "samples=500", "seed=3"]
    assert verify.main([*arguments, f"out={tmp_path}"]) == 0
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["settings"] == {
        "tanh_normal": {"mean": -9.0, "std": 0.5, "points": 100, "samples": 500}
    }
    assert written["seed"] == 3


def test_false_alarms_are_counted_over_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert verify.main(["false_alarms=3", "samples=200"]) == 0
    assert "failed on 0 of 3 seeds" in capsys.readouterr().out
    monkeypatch.setattr("tools.gallery.densities.RAREST", 0.5)
    assert verify.main(["false_alarms=3", "samples=200"]) == 1
    assert os.listdir() == []


def test_a_trained_run_is_audited_and_a_planted_error_found(tmp_path, capsys, monkeypatch):
    import train
    from runtime.launch.door import enter

    run = tmp_path / "run"
    arguments = ["env=pendulum", "agent=sac", "total_steps=210", f"run_dir={run}"]
    assert enter("train", train.run, arguments) == 0
    assert verify.main([f"run={run}", f"out={tmp_path / 'right'}"]) == 0
    assert (tmp_path / "right" / "run.png").exists()
    out = capsys.readouterr().out
    assert len(re.findall(r"step \d+, state \d  +pass", out)) == 8
    assert out.count("section") == 1
    assert "wrong formulas" not in out
    assert (tmp_path / "right" / "report.md").read_text().count("normaliser - 1") == 8
    right = policies.TanhGaussian.log_prob
    monkeypatch.setattr(policies.TanhGaussian, "log_prob", lambda *given: right(*given) + 0.2)
    assert verify.main([f"run={run}", f"out={tmp_path / 'wrong'}"]) == 1
    assert capsys.readouterr().out.count("FAIL") >= 8
    assert verify.main(["run=/nowhere"]) == 2
    assert verify.main([f"run={run}", "samples=100"]) == 2
    assert capsys.readouterr().err.count("error: run: ") == 2


def test_a_figure_of_minus_0_is_written_as_0():
    assert Check("section", "name", -0.0, 1.0).cells[1] == "0"
