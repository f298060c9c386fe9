"""The learner's page and notebook: all code runs, and the verdicts shown are those of the run."""

import json
import math
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import distributions

import audit
from audit.forms import FORMS
from tests.tracked import ROOT
from tools import verify

PAGE = (ROOT / "docs/check_your_own.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
BOOK = json.loads((ROOT / "docs/check_your_own.ipynb").read_text())
CODE = [cell for cell in BOOK["cells"] if cell["cell_type"] == "code"]
CHECKS = re.compile(r"audit\.check(?:_pairs)?\(")
FIGURE = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")

# Executes sources in one namespace: what each printed, and the reports that it received.
RUN = """
import contextlib, io, json, sys
import matplotlib
matplotlib.use("Agg")
answers, space, reports, checks = [], {"__name__": "__main__"}, [], {}
def keeping(name):
    def kept(*args, **kwargs):
        reports.append(checks[name](*args, **kwargs))
        return reports[-1]
    return kept
for source in json.load(sys.stdin):
    if not checks and (audit := sys.modules.get("audit")):
        checks = {"check": audit.check, "check_pairs": audit.check_pairs}
        audit.check, audit.check_pairs = keeping("check"), keeping("check_pairs")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(source, "a block", "exec"), space)
    found = [[report.passed, report.verdict] for report in reports]
    reports.clear()
    answers.append({"printed": printed.getvalue(), "found": found})
json.dump(answers, sys.stdout)
"""


def execute(sources, folder, path=""):
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", RUN]
    own = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run(
        command, input=json.dumps(sources), cwd=folder, env=own, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def same_verdict(shown, found):
    """The same words, and figures within 2 %: another processor rounds differently."""
    if FIGURE.sub("#", shown) != FIGURE.sub("#", found):
        return False
    pairs = zip(FIGURE.findall(shown), FIGURE.findall(found), strict=True)
    numbers = ([float(text.replace(",", "")) for text in pair] for pair in pairs)
    return all(math.isclose(*pair, rel_tol=0.02, abs_tol=0.002) for pair in numbers)


def shows(text, found):
    """Whether the lines of a text that are verdicts are those found, in their order."""
    lines = [line for line in text.splitlines() if re.match("right|wrong: ", line)]
    return len(lines) == len(found) and all(map(same_verdict, lines, [v for _, v in found]))


@pytest.fixture(scope="module")
def answers():
    """In docs/, where nothing but the first cell makes `import audit` possible."""
    return execute(["".join(cell["source"]) for cell in CODE], ROOT / "docs")


@pytest.mark.parametrize("index", range(len(CODE)))
def test_a_cell_is_wrong_where_it_is_a_slip_and_shows_the_verdict_of_today(index, answers):
    source, found = "".join(CODE[index]["source"]), answers[index]["found"]
    assert len(found) == len(CHECKS.findall(source))
    assert all(passed == ("# The slip" not in source) for passed, _ in found), found
    kept = "".join("".join(output.get("text", "")) for output in CODE[index]["outputs"])
    assert shows(answers[index]["printed"], found)
    assert shows(kept, found)


def test_most_cells_end_with_a_check_and_every_slip_has_its_right_form(answers):
    verdicts = [passed for answer in answers for passed, _ in answer["found"]]
    assert len(verdicts) > 15
    assert verdicts.count(False) > 6
    assert verdicts.count(True) > 6


def test_the_notebook_is_valid_small_and_was_run_from_top_to_bottom():
    assert (BOOK["nbformat"], BOOK["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in BOOK["cells"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output.get("name") for output in outputs} == {"stdout", None}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert (ROOT / "docs/check_your_own.ipynb").stat().st_size < 300_000


def plain(line):
    """The name of a line of a report, without what depends on the draws."""
    name = re.sub(r"component \d", "component i", line.split("  ")[0])
    return re.sub(r"= [\d.]+", "= x", name)


def test_the_page_runs_and_shows_the_reports_of_today(tmp_path):
    code = [text for kind, text in BLOCKS if kind == "python" and not text.startswith("# my_")]
    _, *answers = execute(["import audit", *code], tmp_path, ROOT)
    passed = [passed for answer in answers for passed, _ in answer["found"]]
    assert passed == [False, True, False, True]
    texts = [text for kind, text in BLOCKS if kind == "text"]
    printed = [answer for answer in answers if answer["printed"]]
    for text, answer in zip(texts, printed, strict=True):
        assert shows(text, answer["found"])
        rows = [plain(line) for line in text.splitlines()[:-1]]
        assert rows == [plain(line) for line in answer["printed"].splitlines()[:-1]]
        assert all(f"`{row}`" in PAGE for row in rows)
    saved = {file.name for file in (tmp_path / "report").iterdir()}
    assert saved == {"report.md", "report.json", "picture.png"}
    with np.load(tmp_path / "pairs.npz", allow_pickle=False) as arrays:
        assert audit.check_pairs(arrays["actions"], arrays["log_pi"], low=-2, high=2).passed


def test_the_commands_of_the_page_check_its_policy_and_its_pairs(tmp_path, monkeypatch, capsys):
    (module,) = [text for kind, text in BLOCKS if kind == "python" and text.startswith("# my_")]
    (tmp_path / "my_policy.py").write_text(module)
    latent = torch.distributions.Normal(torch.tensor([0.3, -0.5]), 0.5).sample((2000,))
    log_pi = torch.distributions.Normal(torch.tensor([0.3, -0.5]), 0.5).log_prob(latent)
    log_pi = (log_pi - torch.log(2 * (1 - torch.tanh(latent) ** 2))).sum(-1)
    np.savez(tmp_path / "pairs.npz", actions=2 * torch.tanh(latent), log_pi=log_pi)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    commands = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
    commands = [line for line in commands if line.startswith("python tools/verify.py")]
    assert len(commands) == 4
    for line in commands:
        assert verify.main(shlex.split(line)[2:]) == 0, line
    assert capsys.readouterr().out.count("\nright") == 4
    assert (tmp_path / "beta/picture.png").exists()
    sys.modules.pop("my_policy")


def test_the_lines_that_the_page_explains_are_lines_of_reports():
    (table,) = re.findall(r"^\| line \|.*?\n\n", PAGE, re.M | re.S)
    cells = [row.split(" | ")[0] for row in table.strip().splitlines()[2:]]
    explained = {name for cell in cells for name in re.findall("`(.*?)`", cell)}
    normal = distributions.Normal(0.3, 0.5)
    squashed = distributions.TransformedDistribution(normal, [distributions.TanhTransform()])

    plane = normal.sample((2000, 2))

    def both(n):
        action = squashed.sample((n,))
        return action, squashed.log_prob(action)

    reports = [
        audit.check(normal),
        audit.check((both, squashed.log_prob), low=-1, high=1),
        audit.check_pairs(*both(2000), low=-1, high=1),
        audit.check_pairs(*both(2000), low=-1, high=1),
        audit.check_pairs(plane, normal.log_prob(plane).sum(-1)),
        audit.check(distributions.Categorical(torch.tensor([0.2, 0.8]))),
        audit.check(distributions.Independent(distributions.Bernoulli(torch.ones(3) / 2), 1)),
        audit.check(distributions.Independent(distributions.Normal(torch.zeros(2), 1.0), 1)),
    ]
    lines = {line for report in reports for line in str(report).splitlines()}
    assert len(explained) > 10
    assert explained - {plain(line) for line in lines} == set()


def test_the_mistakes_of_the_page_are_those_that_are_recognised():
    (table,) = re.findall(r"^\| looks like \|.*?\n\n", PAGE, re.M | re.S)
    named = [re.match(r"\| (.*?) \|", row)[1] for row in table.strip().splitlines()[2:]]
    assert len(named) > 10
    assert set(named) <= {form.text for form in FORMS.values()}
