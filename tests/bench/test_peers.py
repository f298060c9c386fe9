"""Formulas of others against 50 digits, what counts as an error, the page; slow: the libraries."""

import math
import re
from pathlib import Path

import pytest
import torch

from bench import peers
from bench.peer_densities import ACTIONS, PEERS, torch_noise
from bench.peer_errors import LOG_STDS, compare, errors, exact, mass, measure, mp, points
from common.errors import ConfigError
from tools.gallery import reference

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "peers.md"
RESTATED = [name for name, peer in PEERS.items() if not peer.package]
NUMBER = r"\d+\.?\d*(?:e[+-]?\d+)?"
LIBRARIES = sorted({peer.package for peer in PEERS.values() if peer.package})
GRID = torch.linspace(-7.0, 7.0, 29, dtype=torch.float64).unsqueeze(-1)
NOISE = torch.linspace(-2.5, 2.0, 29, dtype=torch.float64).unsqueeze(-1)
LOG_STD = torch.full_like(GRID, math.log(0.5))

# what each correction adds to log pi: minus the logarithm of its argument over 1 - tanh(u)^2
EPSILON = -torch.log1p(1e-6 * GRID.cosh() ** 2).flatten()
RIGHT = torch.zeros_like(EPSILON)
ADDS = dict.fromkeys(["cleanrl", "holosoma", "tdmpc2", "garage", "rllib-clamped"], EPSILON)


def exactly(mean, noise, action):
    """(own, given), (N, 3) each."""
    columns = (x.flatten().tolist() for x in (mean, noise, action))
    found = [exact("tanh", *row, mp.mpf(0.5)) for row in zip(*columns, strict=True)]
    return [reference.tensor(case) for case in zip(*found, strict=True)]


@pytest.mark.parametrize("name", RESTATED)
def test_a_restated_formula_differs_from_50_digits_by_its_own_error_alone(name):
    peer, mean = PEERS[name], GRID - 0.5 * NOISE
    action, log_pi = peer.own(mean, LOG_STD, NOISE)
    own, given = exactly(mean, NOISE, action)
    torch.testing.assert_close(action, torch.tanh(GRID))
    expected = ADDS.get(name, RIGHT)
    assert (log_pi.flatten() - own[:, 0] - expected).abs().max() < 1e-7
    if peer.given is not None:
        log_prob = peer.given(mean, LOG_STD, action).flatten()
        assert (log_prob - given[:, 0] - expected).abs().max() < 1e-7


@pytest.mark.parametrize("name", ["rlkit", "rllib", "rllib-clamped"])
def test_actions_are_clamped_where_the_sources_clamp_them(name):
    action = torch.tensor([[0.9999995], [0.999999], [0.999998]], dtype=torch.float64)
    mean, log_std = torch.zeros_like(action), torch.zeros_like(action)
    beyond, edge, inside = PEERS[name].given(mean, log_std, action).flatten().tolist()
    assert beyond == pytest.approx(edge, abs=1e-8) != inside


def test_the_older_rllib_keeps_the_gaussian_within_100_nat():
    mean, log_std, action = (torch.tensor([[x]]).double() for x in (0.0, -10.0, 0.5))
    expected = -100.0 - math.log(1.0 - 0.25 + 1e-6)
    assert PEERS["rllib-clamped"].given(mean, log_std, action).item() == pytest.approx(expected)


def test_the_exact_derivatives_are_those_of_the_exact_values():
    mean, noise, action, log_std = (mp.mpf(x) for x in ("0.75", "-0.5", "0.375", "-0.625"))

    def value(case, m, s):
        u = m + mp.exp(s) * noise if case == 0 else mp.atanh(action)
        e = noise if case == 0 else (u - m) / mp.exp(s)
        return -(e**2) / 2 - s - mp.log(2 * mp.pi) / 2 - mp.log(1 - mp.tanh(u) ** 2)

    found = exact("tanh", mean, noise, action, mp.exp(log_std))
    for case, row in enumerate(found):
        by_mean, by_log_std = (
            mp.diff(lambda m, s, case=case: value(case, m, s), (mean, log_std), order)
            for order in ((1, 0), (0, 1))
        )
        for got, wanted in zip(row, (value(case, mean, log_std), by_mean, by_log_std), strict=True):
            assert abs(got - wanted) < 1e-20


@pytest.mark.parametrize("side", [-1, 1])
def test_a_clipped_action_has_the_probability_beyond_its_bound(side):
    value, by_mean, by_log_std = mass(0.25, mp.exp(mp.mpf("-0.5")), side)

    def beyond(m, s):
        tail = mp.ncdf((1 - m if side > 0 else 1 + m) / mp.exp(s))
        return mp.log(1 - tail)

    point = (mp.mpf(0.25), mp.mpf("-0.5"))
    assert abs(value - beyond(*point)) < 1e-20
    assert abs(by_mean - mp.diff(beyond, point, (1, 0))) < 1e-20
    assert abs(by_log_std - mp.diff(beyond, point, (0, 1))) < 1e-20


def test_errors_are_the_worst_with_its_sign_where_they_begin_and_what_is_not_finite(monkeypatch):
    monkeypatch.setattr("bench.peer_errors.LATENTS", torch.tensor([-4.0, 3.0, -2.0, 1.0, 0.5]))
    everywhere = torch.ones(5, dtype=torch.bool)
    found = errors(torch.tensor([math.nan, math.inf, -0.5, 0.25, 0.001]), everywhere)
    assert (found.worst, found.start, found.lost, found.points) == (-0.5, 1.0, 2, 5)
    assert found.text == "-0.5, NaN or ∞ at 2 of 5 from 1"
    small = torch.tensor([math.nan, 0.01, 0.0, -0.002, 0.001], dtype=torch.float64)
    found = errors(small, torch.arange(5) > 0)
    assert (found.start, found.lost, found.text) == (None, 0, "1e-02")
    assert errors(torch.full((5,), math.nan), everywhere).text == "NaN or ∞ at 5 of 5 from 0.5"


def test_gradients_are_compared_each_with_its_own(monkeypatch):
    monkeypatch.setattr("bench.peer_errors.LATENTS", torch.tensor([1.0, -20.0]))
    mean, log_std = (torch.zeros(2, 1, requires_grad=True) for _ in range(2))
    value = (3.0 * mean + 5.0 * log_std).squeeze(-1)
    true = torch.tensor([[0.0, 3.0, 5.0], [0.0, 3.0, 4.0]], dtype=torch.float64)
    found = compare(value, (mean, log_std), true, torch.ones(2, dtype=torch.bool))
    assert (found.value.start, found.gradient.worst, found.gradient.start) == (None, 0.25, 20.0)
    assert (found.slope, found.bound) == (-3.0, "")


@pytest.mark.parametrize(
    ("at_bound", "word"), [(1.0, "finite"), (math.inf, "∞"), (math.nan, "NaN")]
)
def test_an_action_rounded_to_its_bound_is_counted_apart(at_bound, word, monkeypatch):
    monkeypatch.setattr("bench.peer_errors.LATENTS", torch.tensor([1.0, -20.0]))
    mean, log_std = (torch.zeros(2, 1, requires_grad=True) for _ in range(2))
    value = (mean + log_std).squeeze(-1) + torch.tensor([0.5, at_bound])
    true = torch.tensor([[0.0, 1.0, 1.0], [math.nan] * 3], dtype=torch.float64)
    found = compare(value, (mean, log_std), true, torch.ones(2, dtype=torch.bool))
    assert (found.value.worst, found.value.lost, found.value.points) == (0.5, 0, 1)
    assert found.bound == word
    assert compare(value, (mean, log_std), true, torch.arange(2) < 1).bound == ""


def test_means_of_clipped_draws_are_in_the_box():
    at = points("clip", torch_noise, 0.0)
    assert (at.mean[at.kept].abs() <= 1.0).all()
    assert 0 < at.kept.sum() < points("tanh", torch_noise, 0.0).kept.sum() == len(at.kept)


def test_a_peer_that_draws_other_noise_is_refused(monkeypatch):
    peer = PEERS["cleanrl"]
    monkeypatch.setattr("bench.peer_errors.LOG_STDS", {"σ = 1": 0.0})

    def other(mean, log_std, noise):
        return peer.own(mean, log_std, noise.roll(1, 0))

    with pytest.raises(ConfigError, match="draws other noise; install the pinned versions"):
        measure(peers.Peer(other, name="x"))


def test_some_peers_are_measured_and_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.peer_errors.LOG_STDS", {"σ = 1": 0.0})
    monkeypatch.setattr("bench.peers.LOG_STDS", {"σ = 1": 0.0})
    text = PAGE.read_text()
    for place in ("Measured on", "squashed draws begin at |u| =", "\nfunction:"):
        text, count = re.subn(f"{re.escape(place)} .*", f"{place} of old.", text)
        assert count == 1
    (tmp_path / "old.md").write_text(text)
    monkeypatch.setattr("bench.peers.PAGE", tmp_path / "old.md")
    assert peers.main(["only=cleanrl,spinningup", f"out={tmp_path / 'x'}"]) == 0
    printed = capsys.readouterr().out
    assert "CleanRL, LeanRL: of its own draws log π is too low by up to 24.8 nat" in printed
    assert "its gradient by μ at |u| = 20 is 0 in place of 2" in printed
    assert "Spinning Up: of its own draws log π holds at every σ." in printed
    report = (tmp_path / "x" / "report.md").read_text()
    sections = re.findall(r"^(?:#+ (.*)|\| CleanRL, LeanRL \|.*)$", report, re.M)
    assert sections == [  # it has no density of a given action
        *(
            "Log-probabilities of other libraries, measured",
            "",
            "Its own draws, as in training",
            "",
        ),
        *("A given action, as from a replay", "In a sentence each"),
        *("Seen a second time, by the tool", ""),
    ]
    wrong, right = r"wrong: log_pi is too low .*1e-6.* \| ", r"right to \\\|u\\\| = [\d.]+ \| "
    assert re.search(rf"^\| CleanRL, LeanRL \| ({wrong}){{2}}– \|$", report, re.M)
    assert re.search(rf"^\| Spinning Up \| ({right}){{2}}– \|$", report, re.M)
    (start,) = re.findall(r"from \|u\| = ([\d.]+) on", printed)
    assert f"the errors of squashed draws begin at |u| = {start}.\n" in report
    assert re.search(r"Measured on [\d-]+, torch [\d.]+\+?\w*, .*cores.*\.\n", report)
    assert "\nfunction: -1 from 7.5 at σ = 1.\n" in report


def test_the_tool_sees_a_density_of_given_actions_and_why_there_is_no_verdict(monkeypatch):
    monkeypatch.setattr("bench.peer_errors.DRAWS", 4000)
    assert peers.verdicts(PEERS["pytorch_sac"])[2].startswith("right: ")
    assert "clipped to ±(1 − 1e-6)" in peers.verdicts(PEERS["rlkit"])[2]
    monkeypatch.setattr("bench.peer_errors.DRAWS", 10)
    assert all(words.startswith("none: ") for words in peers.verdicts(PEERS["rlkit"]))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["only=cleanrl", "write=true"], "write: the page is of all peers; leave only out"),
        (["only=clean"], "only: there is no 'clean'"),
        (["nope=1"], "nope: "),
    ],
)
def test_bad_input_is_one_line(arguments, line, capsys):
    assert peers.main(arguments) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"error: {line}")


def test_a_library_that_is_not_installed_is_named_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr("bench.peers.distributions", lambda name: iter(()))
    assert peers.main(["only=torchrl"]) == 2
    assert capsys.readouterr().err == f"error: peers: torchrl is not installed; {peers.INSTALL}\n"
    extra = re.search(r"^peers = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert sorted(re.findall(r'"([\w-]+)"', extra)) == [p for p in LIBRARIES if p != "torch"]


def test_the_page_has_every_peer():
    text = PAGE.read_text()
    for name, peer in PEERS.items():
        assert text.count(f"| {peer.name} |") == (3 if peer.given is None else 4), name
        assert f"* {peer.name}: of its own draws log π " in text, name
        assert peer.action in ACTIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.package])
def test_a_library_does_what_the_page_has(name):
    peer = PEERS[name]
    if peers.missing({name: peer}):
        pytest.skip(f"{peer.package} is not installed: {peers.INSTALL}")
    found = measure(peer)
    (line,) = re.findall(rf"^\* {re.escape(peer.name)}: (.*)$", PAGE.read_text(), re.M)
    words, page = peers.sentence(peer, found), f"{peer.name}: {line}"
    assert re.sub(NUMBER, "", words) == re.sub(NUMBER, "", page)
    measured, listed = ([float(x) for x in re.findall(NUMBER, text)] for text in (words, page))
    assert measured == pytest.approx(listed, rel=0.2)  # of rounding on other processors
    if peer.action == "tanh":  # none errs where most of a training is
        at = points(peer.action, peer.noise, LOG_STDS["σ = 1"])
        assert at.own.isfinite().all()
        for width in ("σ = 1", "σ = 0.05"):
            assert (found["own", width].value.start or math.inf) > 5.0
