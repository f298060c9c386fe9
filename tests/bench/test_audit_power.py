"""The measure of the audit's power: what it audits, counts, and calls a failure."""

import re

import pytest

from audit.forms import FORMS
from bench import audit_power
from bench.audit_power import CONSTANTS, OTHERS, Audit, Case, audited, cases, main
from tests.audit.mistakes import SEVERAL

DRAWS = 20_000
ONE = ["only=half_forgotten", "right=none"]


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Case, bool, int]]:
    """Of a half that is forgotten all but those of seed 2 are found; the list of those made."""
    made: list[tuple[Case, bool, int]] = []

    def found(case: Case, pairs: bool, draws: int, seed: int) -> Audit:
        made.append((case, pairs, seed))
        form = "half_subtracted" if seed == 1 else case.mistake
        return Audit(not case.mistake or seed == 2, form, 0.25 + 0.5 * pairs)

    monkeypatch.setattr(audit_power, "audited", found)
    return made


def test_every_mistake_with_numbers_is_audited_and_each_right_density() -> None:
    listed = list(cases(""))
    assert {case.mistake for case in listed} == {*FORMS, ""}
    assert {case.kind for case in listed if not case.mistake} == {
        *("line", "tanh", "box", "float32", "by hand", "choices", *OTHERS)
    }
    assert len({*listed}) == len(listed)


def test_a_row_counts_what_is_caught_and_rightly_named_of_densities_and_of_pairs(
    audits: list[tuple[Case, bool, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ONE, "seeds=0-3", "dimensions=1"]) == 1
    case = Case("half_forgotten", 1, "box", pairs=True)
    assert audits == [(case, pairs, seed) for pairs in (False, True) for seed in range(4)]
    form = FORMS["half_forgotten"]
    row = f"| [{form.name}]({form.source}) | 1 | 3 of 4 | 2 | 3 of 4 | 2 | 0.50 | {form.text} |"
    assert row in capsys.readouterr().out
    assert main([*ONE, "seeds=0-1", "dimensions=1", "pairs=false"]) == 0
    row = f"| [{form.name}]({form.source}) | 1 | 2 of 2 | 1 |  |  | 0.25 | {form.text} |"
    assert row in capsys.readouterr().out
    audits.clear()
    assert main(["only=broadcast", "right=none", "seeds=0"]) == 0
    assert [pairs for _, pairs, _ in audits] == [False, False]


@pytest.mark.parametrize(
    ("seeds", "passed", "code"),
    [
        *(("seeds=0 right=none", passed, code) for passed, code in ((True, 1), (False, 0))),
        *(("seeds=none right=0", passed, code) for passed, code in ((True, 0), (False, 1))),
    ],
)
def test_the_exit_code_counts_what_is_missed_and_what_is_accused(
    seeds: str, passed: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_power, "audited", lambda *_: Audit(passed, None, 1.0))
    assert main([*seeds.split(), "only=half_forgotten"]) == code


@pytest.mark.slow
def test_audits_in_lanes_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for lanes in (1, 2):
        assert main([*ONE, "seeds=0-3", "dimensions=1", "draws=4000", f"lanes={lanes}"]) == 0
    rows = re.findall(
        r"^\| \[half_forgotten.*\| (\d of \d \| \d \| \d of \d \| \d)",
        capsys.readouterr().out,
        re.M,
    )
    assert rows == ["4 of 4 | 4 | 4 of 4 | 4"] * 2


QUICK = [
    (case, pairs)
    for case in cases("")
    if (case.size < 3 or case.mistake in SEVERAL)
    and case.constant in (1e-6, CONSTANTS[0])
    and case.mistake != "summed_over_batch"  # one call for each action: tests/audit has it
    for pairs in (False, True)[: 1 + case.pairs]
]


@pytest.mark.parametrize(("case", "pairs"), QUICK, ids=str)
def test_a_mistake_is_caught_and_named_and_a_right_density_is_not(case: Case, pairs: bool) -> None:
    found = audited(case, pairs, DRAWS, seed=1)
    assert (found.passed, found.form) == (not case.mistake, case.mistake or None)
