"""A report as text, as files, and in a notebook."""

import json

import torch

import audit


def test_a_report_is_text_files_and_html(tmp_path):
    report = audit.check(torch.distributions.Normal(4.0, 0.8), draws=2000)
    assert str(report).splitlines()[-1] == report.verdict
    assert report.verdict in repr(report)
    assert "tensor" not in repr(report)
    folder = report.save(tmp_path / "new")
    written = json.loads((folder / "report.json").read_text())
    assert written["passed"]
    assert written["verdict"] == report.verdict
    assert len(written["trials"]) == len(report.trials)
    text = (folder / "report.md").read_text()
    assert text.startswith(f"**{report.verdict}**")
    assert text.count("| pass |") == len(report.trials)
    assert (folder / "picture.png").read_bytes()[:4] == b"\x89PNG"
    html = report._repr_html_()
    assert report.verdict in html
    assert "data:image/png;base64," in html
    assert report.picture().shape[2] == 3


def test_what_is_no_number_is_json_too():
    report = audit.check(
        sample=torch.distributions.Normal(0.0, 1.0).sample,
        log_prob=lambda action: torch.log(action),
        draws=2000,
    )
    assert not report.passed
    assert json.dumps(report.as_json(), allow_nan=False)
    assert report.picture().ndim == 3
