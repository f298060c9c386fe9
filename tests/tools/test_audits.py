"""False alarms of audits are counted, over policies of every kind."""

import os

import torch

import policies
from tools import verify
from tools.gallery import audits


def test_false_alarms_of_audits_are_counted_by_kind_and_trial(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert verify.main(["audits=16"]) == 0
    said = capsys.readouterr().out
    assert "16 audits of right policies, 0 failed" in said
    rows = [line for line in said.splitlines() if " run " in line]
    assert len(rows) == 3 * len(audits.KINDS)
    assert all(" 0 failed" in row for row in rows)
    monkeypatch.setattr("audit.density.INTEGRAL_ERROR", -1.0)
    assert verify.main(["audits=16"]) == 1
    said = capsys.readouterr().out
    assert "16 audits of right policies, 16 failed" in said
    assert os.listdir() == []


def test_audits_are_of_policies_of_every_size():
    generator = torch.Generator().manual_seed(0)
    for kind, (make, draw) in audits.KINDS.items():
        drawn = [draw(generator) for _ in range(60)]
        sizes = {len(parameters[0]) for parameters in drawn}
        if make is not policies.Categorical:
            assert sizes == {1, 2, 3, 4, 5, 6}, kind
        assert all(part.dtype == torch.float32 for parameters in drawn for part in parameters)
    certain = [make_probs(audits.certain(generator)) for _ in range(60)]
    assert min(float(probs.max()) for probs in certain) > 0.9
    means, _ = audits.saturated(generator)
    assert bool((means.abs() >= 3).all())


def make_probs(parameters):
    return parameters[0].exp()
