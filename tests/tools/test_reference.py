"""The 50-digit references of the gallery against textbook forms and against differences."""

import math

import mpmath
import pytest

from tools.gallery import reference

mpmath.mp.dps = 50
MEAN = ["0.5", "-3.25"]
TRIL = [["0.75", "0"], ["-0.5", "0.125"]]
POINT = ["1.5", "-4.5"]


def numbers(rows):
    return [numbers(r) if isinstance(r, list) else mpmath.mpf(r) for r in rows]


def formula(mean, tril, noise, latent, squashed):
    """log pi as it stands in textbooks: the density of u over the derivative of tanh."""
    total = -mpmath.log(2 * mpmath.pi) - mpmath.log(tril[0][0]) - mpmath.log(tril[1][1])
    total -= (noise[0] ** 2 + noise[1] ** 2) / 2
    if squashed:
        total -= sum(mpmath.log(1 - mpmath.tanh(u) ** 2) for u in latent)
    return total


def given_latent(mean, tril, latent, squashed):
    first = (latent[0] - mean[0]) / tril[0][0]
    second = (latent[1] - mean[1] - tril[1][0] * first) / tril[1][1]
    return formula(mean, tril, (first, second), latent, squashed)


def given_noise(mean, tril, noise, squashed):
    latent = (
        mean[0] + tril[0][0] * noise[0],
        mean[1] + tril[1][0] * noise[0] + tril[1][1] * noise[1],
    )
    return formula(mean, tril, noise, latent, squashed)


def entropy(mean, tril, squashed):
    total = mpmath.log(2 * mpmath.pi) + 1 + mpmath.log(tril[0][0]) + mpmath.log(tril[1][1])
    for m, row in zip(mean, tril, strict=True):
        std = mpmath.sqrt(row[0] ** 2 + row[1] ** 2)
        if squashed:
            total += mpmath.quad(
                lambda e, m=m, std=std: (
                    mpmath.log(1 - mpmath.tanh(m + std * e) ** 2) * mpmath.npdf(e)
                ),
                mpmath.linspace(-11, 11, 12),
            )
    return total


def at(function, values, squashed, *fixed):
    """The function of its five parameters alone: two means, three entries of the triangle."""

    def of(m0, m1, l00, l10, l11):
        tril = [[l00, mpmath.mpf(0)], [l10, l11]]
        return function([m0, m1], tril, *fixed, squashed)

    return of, [mpmath.mpf(v) for v in values]


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize("name", ["log_prob", "log_pi", "entropy"])
def test_value_and_gradient(name, squashed):
    oracle = {"log_prob": given_latent, "log_pi": given_noise, "entropy": entropy}[name]
    fixed = [] if name == "entropy" else [[mpmath.mpf(x) for x in POINT]]
    values = [*MEAN, TRIL[0][0], *TRIL[1]]
    function, point = at(oracle, values, squashed, *fixed)
    ours = getattr(reference, name)(
        numbers(MEAN), numbers(TRIL), *([numbers(POINT)] if fixed else []), squashed
    )
    digits = 15 if name == "entropy" else 40
    with mpmath.workdps(25 if name == "entropy" else 50):
        assert abs(ours.value - function(*point)) < mpmath.mpf(10) ** -digits
        found = [*ours.by_mean, ours.by_tril[0][0], *ours.by_tril[1]]
        for i, slope in enumerate(found):
            step = mpmath.mpf(10) ** -8
            up = [p + step * (j == i) for j, p in enumerate(point)]
            down = [p - step * (j == i) for j, p in enumerate(point)]
            difference = (function(*up) - function(*down)) / (2 * step)
            assert abs(slope - difference) < 1e-10 * max(1, abs(difference))


def test_terms_by_origin_and_component():
    noise, tril, u = numbers(POINT), numbers(TRIL), numbers(["-0.5", "3"])
    found = reference.terms(tril, noise, u, True)
    exact = {
        "gaussian": [mpmath.log(mpmath.npdf(mpmath.mpf(e))) for e in POINT],
        "scale": [-mpmath.log(mpmath.mpf(TRIL[i][i])) for i in range(2)],
        "jacobian": [2 * mpmath.log(mpmath.cosh(mpmath.mpf(x))) for x in ("-0.5", "3")],
    }
    assert found.keys() == exact.keys()
    for name, part in exact.items():
        for ours, theirs in zip(found[name], part, strict=True):
            assert abs(ours - theirs) < 1e-40
    assert reference.terms(tril, noise, u, False).keys() == {"gaussian", "scale"}


def test_tanh_its_log_derivative_and_softmax():
    for u in ("-30", "-0.001", "0", "2.5", "40"):
        exact = mpmath.mpf(u)
        value, slope = reference.log_det_tanh(exact)
        e, small = mpmath.exp(exact), mpmath.exp(-exact)
        assert abs(value + 2 * mpmath.log((e + small) / 2)) < 1e-40
        assert abs(slope + 2 * (e - small) / (e + small)) < 1e-40
    log_p, p = reference.log_softmax(numbers(["-1000", "3", "3.5"]))
    assert abs(sum(p) - 1) < 1e-40
    assert abs(log_p[0] - (-1003.5 - mpmath.log1p(mpmath.exp(mpmath.mpf("-0.5"))))) < 1e-40


def test_numbers_are_rounded_to_the_nearest_float():
    third = reference.mp.mpf(2) / 3
    assert reference.tensor([[third], [-third]]).tolist() == [[2 / 3], [-2 / 3]]
    assert reference.tensor(reference.exp([[0.5], [2.0]])).tolist() == [
        [math.exp(0.5)],
        [math.exp(2)],
    ]
