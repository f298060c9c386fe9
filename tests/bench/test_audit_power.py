"""The measure of the audit's power: what it audits, counts, continues and calls a failure."""

import json
from pathlib import Path
from typing import Any

import pytest

from audit.forms import FORMS
from bench import audit_power
from bench.audit_power import CONSTANTS, OTHERS, Case, audited, cases, main
from tests.audit.mistakes import SEVERAL

DRAWS = 20_000
ONE = ["only=half_forgotten", "right=none"]


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every audit finds its mistake; the list of those made."""
    made: list[tuple[str, int]] = []

    def found(case: Case, seed: int, draws: int) -> dict[str, Any]:
        made.append((case.label, seed))
        return {"passed": not case.mistake, "form": case.mistake or None, "seconds": 0.5}

    monkeypatch.setattr(audit_power, "audited", found)
    return made


def test_every_mistake_with_numbers_is_audited_and_each_right_density() -> None:
    listed = list(cases(""))
    assert {case.mistake for case in listed} == {*FORMS, ""}
    assert {case.kind for case in listed if not case.mistake} == {
        *("line", "tanh", "box", "float32", "by hand", "choices", *OTHERS)
    }
    assert len({case.label for case in listed}) == len(listed)


def test_a_run_continues_where_another_stopped(
    audits: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ONE, "seeds=0-2", f"out={tmp_path}"]) == 0
    assert len(audits) == 3 * 4  # seeds; check and check_pairs in 1 and 3 dimensions
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-20])
    for _ in range(2):
        assert main([*ONE, "seeds=0-2", f"out={tmp_path}"]) == 0
        assert len(audits) == 3 * 4 + 1
    form = FORMS["half_forgotten"]
    row = f"| [{form.name}]({form.source}) | 1 | 3 of 3 | 3 | 3 of 3 | 3 | 0.50 | {form.text} |"
    assert row in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mistake", "passed", "code"),
    [("half_forgotten", True, 1), ("half_forgotten", False, 0), ("", True, 0), ("", False, 1)],
)
def test_the_exit_code_counts_what_is_missed_and_what_is_accused(
    mistake: str, passed: bool, code: int, tmp_path: Path, audits: list[tuple[str, int]]
) -> None:
    case = next(case for case in cases("half_forgotten") if case.mistake == mistake)
    line = {"case": case.label, "seed": 0, "passed": passed, "form": mistake, "seconds": 1.0}
    (tmp_path / "one.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["seeds=none", "right=none", "only=half_forgotten", f"out={tmp_path}"]) == code


QUICK = [
    case
    for case in cases("")
    if (case.size < 3 or case.mistake in SEVERAL)
    and case.constant in (1e-6, CONSTANTS[0])
    and case.mistake != "summed_over_batch"  # one call for each action: tests/audit has it
]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.label)
def test_a_mistake_is_caught_and_named_and_a_right_density_is_not(case: Case) -> None:
    found = audited(case, seed=1, draws=DRAWS)
    assert (found["passed"], found["form"]) == (not case.mistake, case.mistake or None)
