"""The check of a policy that chooses one of K actions, or one of K in each of D components."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.checks import DEVIATIONS
from audit.density import INTEGRAL_ERROR, Trial, examine_choices
from audit.forms import FORMS
from audit.given import Drawn, called, number_of
from audit.recognition import recognise_choices
from audit.report import Report
from audit.support import floats

FORBIDDEN = 1e-6  # the largest probability of what a mask forbids
MOST = 100_000  # choices
RARE, FEW_PAIRS = 5.0, 40  # draws that are expected; pairs of them that are no mistake
FEW = 500  # draws that are scored one at a time
SHAPE = "one number for each action: 0 if so"
EPSILON = ("log_with_epsilon",)  # a mistake that only the sum of the probabilities shows
SLIPS = {  # shapes of log_prob
    "sum_forgotten": "log_prob gives one number for each component of a choice",
    "broadcast": "log_prob gives N numbers for each of N choices",
}
FAILED = {  # words for the tests
    "one number": "{slip}",
    "share": "what the mask forbids is drawn",
    "probability": "what the mask forbids has a probability",
    "mistakes": "the probabilities sum to {total:.9g}",
    "|normaliser": "the probabilities sum to {total:.3g}",
    "-log10 p of the": "{worst}",
    "pairs of": "rare choices have other probabilities than their draws show",
    "-log10 p of two": "the components of the draws depend on one another",
    "-log10 p of all": "the components of the draws depend on one another",
    "|joint": "log_prob of the draws is up to {joint:.2g} nat off what was claimed",
    "|log_pi - ": "log_pi and log_prob differ by {differs:.2g} nat at the same draw",
    "|entropy": "entropy() is too {side} by {gap:.2g} nat",
}


def table_of(
    policy: Any, drawn: Drawn, log_prob: Any, given: dict[str, Any], mask: Any
) -> Tensor | None:
    """Log-probabilities (K,) or (D, K): as given, or as a discrete policy has them; else None.

    Raises:
        ValueError: more than one was given, or something else than probabilities.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)}: came together; give one of them")
    continuous = drawn.actions.is_floating_point()
    if not named and getattr(getattr(policy, "support", None), "is_discrete", not continuous):
        found = [(name, getattr(policy, name, None)) for name in ("log_probs", "logits")]
        named = dict([(n, v) for n, v in found if getattr(v, "ndim", 0) > 0][:1])
        if not named:
            return every(log_prob, drawn)
    for name, value in named.items():
        values = filled(value, name).detach().double()
        wrong = values.isnan()
        if name == "probs":
            wrong |= values < 0
        elif name == "log_probs" and abs(float(values.clamp_min(0).sum(-1).max()) - 1) > 1e-3:
            wrong |= values > 1e-3  # those that sum to 1 are a mistake that has a name
        if bool(wrong.any()):
            what = {"probs": "probabilities", "log_probs": "their logarithms"}.get(name, "numbers")
            raise ValueError(f"{name}: have {float(values[wrong][0]):g} in them; give {what}")
        if name == "logits" and mask is not None:
            may = permitting(mask)
            if may.numel() != values.numel():
                came = f"{tuple(may.shape)} came for logits {tuple(values.shape)}"
                raise ValueError(f"mask: {came}; give one of their shape")
            values = values.masked_fill(~may.reshape(values.shape), -math.inf)
        if name != "log_probs":
            values = values.log_softmax(-1) if name == "logits" else values.log()
        some = mask is not None or bool(values.isfinite().any(-1).all())
        if not values.numel() or not values.ndim or not some:
            raise ValueError(f"{name}: there is nothing to choose; give (K,) or (D, K) numbers")
        return values
    return None


def filled(value: Any, what: str) -> Tensor:
    """As numbers; of components with K choices each, (D, largest K), those that lack impossible."""
    if not isinstance(value, list | tuple) or len({np.shape(row) for row in value}) < 2:
        return floats(value, what)
    rows = [floats(row, what) for row in value]
    if any(row.ndim != 1 for row in rows):
        raise ValueError(f"{what}: have rows of other shapes; give (K,) numbers for each component")
    none = -math.inf if what in ("logits", "log_probs") else 0.0
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=none)


def permitting(mask: Any) -> Tensor:
    """True where a choice is permitted; raises ValueError for a mask of other numbers."""
    found = filled(mask, "mask")
    other = found[(found != 0) & (found != 1)]
    if len(other):
        raise ValueError(f"mask: has {float(other[0]):g} in it; give True where permitted, or 1")
    return found.bool()


def every(log_prob: Any, drawn: Drawn) -> Tensor:
    """log_prob of all choices (K,), also of some beyond those that were drawn, if there are any."""
    actions = integers(drawn)
    if log_prob is None or actions.shape[1] > 1:
        raise ValueError(
            "log_probs: the draws are choices, and it is not known among how many; give probs=, "
            "logits= or log_probs="
        )
    largest = int(actions.max())
    for count in (2 * largest + 20, *range(largest + 20, largest, -1)):  # not all may be drawn
        given = drawn.as_came(torch.arange(count, dtype=drawn.actions.dtype))
        try:
            return floats(called("log_prob", log_prob, given), "log_prob").detach().reshape(count)
        except (ValueError, RuntimeError) as error:
            last = error
    raise ValueError(f"log_prob: does not score all choices; give log_probs= too ({last})")


def choices(
    drawn: Drawn,
    table: Tensor,
    log_prob: Any = None,
    entropy: Any = None,
    mask: Any = None,
    extra: tuple[Trial, ...] = (),
    gap: float = math.nan,
    labels: Sequence[str] = (),
) -> Report:
    """Checks integer draws against the log-probabilities claimed for them.

    Args:
        drawn: (S,) or (S, D) integers from 0.
        table: (K,) or (D, K) claimed.
        log_prob: of actions shaped like the draws, where there is one.
        entropy: a number or a function, where there is one.
        mask: of the table's shape, True where a choice is permitted.
        extra: more tests, of what the table does not show.
        gap: in nats, of the draws' entropy from the one claimed, where `extra` tests it.
        labels: of the choices, by default their numbers.

    Raises:
        ValueError: in one line with the remedy.
    """
    actions = integers(drawn)
    rows = table.double().reshape(-1, table.shape[-1])
    permitted = torch.ones_like(rows).bool() if mask is None else permitting(mask)
    with_mask = "" if mask is None else f" and mask {tuple(permitted.shape)}"
    if len(rows) != actions.shape[1] or permitted.numel() != rows.numel():
        raise ValueError(
            f"probs: {tuple(table.shape)}{with_mask} do not fit draws of {actions.shape[1]} "
            "components; give (K,) for one, (D, K) for more, and draw indices"
        )
    permitted = permitted.reshape(rows.shape)
    if not bool(permitted.any(-1).all()):
        raise ValueError("mask: forbids every choice; permit one")
    scores, slip = scored(log_prob, drawn, len(rows))
    joint = None if scores is None else scores.sum(-1)
    finding = examine_choices(actions, [*rows], joint, number_of(entropy, len(rows) > 1))
    trials = [*finding.trials, *extra]
    held = [column.clamp_max(rows.shape[1] - 1) for column in actions.T]
    counts = [torch.bincount(column, minlength=rows.shape[1]) for column in held]
    if mask is not None:
        taken = torch.stack([row[at] for row, at in zip(permitted, held, strict=True)])
        share = 1.0 - float(taken.double().mean())
        claimed = float(rows.exp().masked_fill(permitted, 0.0).sum(-1).max())
        trials.append(Trial("share of the draws that the mask forbids", share, 0.0))
        trials.append(Trial("probability of what the mask forbids", claimed, FORBIDDEN))
    second, other = scored(None, drawn, len(rows))
    if joint is not None and log_prob is not None and second is not None:
        differs = float((second[: len(joint)].sum(-1) - joint).abs().max())
        trials.append(Trial("|log_pi - log_prob| of the draws", differs, INTEGRAL_ERROR))
    slip = slip or other
    if any(trial.name == SHAPE for trial in extra):
        slip = "sum_forgotten"
    elif slip:
        trials.append(Trial(SHAPE, 1.0, 0.0))
    names: tuple[str, ...] = (slip,) if slip else ()
    for row, count, may in zip(rows, counts, permitted, strict=True):
        names = names or recognise_choices(row, count, None if mask is None else may)
    if mask is not None and not names:
        names = without_mask(joint, rows, held)
    if all(trial.passed for trial in trials):
        names = () if coarse(rows) or names != EPSILON else names
        trials.append(Trial("mistakes that fit to rounding", float(len(names)), 0.0))
    failed = [trial.name for trial in trials if not trial.passed]
    gap = finding.entropy_gap if math.isnan(gap) else gap
    figures = {trial.name.split()[0]: trial.figure for trial in trials}
    words = {
        "total": finding.normaliser,
        "worst": farthest(torch.stack(counts) / len(actions), rows.exp(), labels),
        "slip": SLIPS.get(slip),
        "side": "low" if gap > 0 else "high",
        "gap": abs(gap),
        "joint": figures.get("|joint"),
        "differs": figures.get("|log_pi"),
    }
    parts = [text.format(**words) for begin, text in FAILED.items() if begin in " ".join(failed)]
    looks = " or ".join(FORMS[name].text for name in names[:3])
    verdict = f"wrong: {'; '.join(parts)}: {f'looks like {looks}' if looks else 'unknown error'}"
    if not failed:
        number = f"{len(actions):,} draws"
        verdict = f"right: {number} are as frequent as their probabilities, which sum to 1"
    return Report(verdict, tuple(trials), finding.curves, names[0] if names else None)


def coarse(rows: Tensor) -> bool:
    """Whether log-probabilities, or their probabilities, were rounded to float32."""
    finite = rows[rows.isfinite()]
    return any(torch.allclose(x.float().double(), x, 1e-13, 0.0) for x in (finite, finite.exp()))


def without_mask(log_pi: Tensor | None, rows: Tensor, held: list[Tensor]) -> tuple[str, ...]:
    """The mistake's name where log_prob of all draws is too low by the same."""
    if log_pi is None:
        return ()
    claimed = [row[at[: len(log_pi)]] for row, at in zip(rows, held, strict=True)]
    off = log_pi - torch.stack(claimed).sum(0)
    same = float(off.std()) < INTEGRAL_ERROR < -float(off.mean())
    return ("mask_forgotten",) if same else ()


def scored(log_prob: Any, drawn: Drawn, size: int) -> tuple[Tensor | None, str]:
    """What log_prob, or else `sample`, gives for the draws, (S, any), or fewer, and its slip.

    None if neither does. The slip is that of the shape, "" if it is as it should be for `size`
    components.
    """

    def of(actions: Tensor) -> Tensor:
        found = called("log_prob", log_prob, drawn.as_came(actions))
        return floats(found, "log_prob").detach().double()

    if log_prob is None:
        second = drawn.second
        if second is None or not second.is_floating_point():
            return None, ""
        if second.numel() == drawn.actions.numel() and torch.equal(
            second.double(), drawn.numbers()
        ):
            return None, ""  # the action once more
        found = second.double()
    elif drawn.batch:  # one at a time
        found = torch.stack([of(one).flatten() for one in drawn.actions[:FEW]])
    else:
        few = drawn.actions[: size + 2]
        if (found := of(few)).shape == (len(few), len(few)):
            return found.diagonal().unsqueeze(-1), "broadcast"
        found = of(drawn.actions)
        if not found.ndim or len(found) != len(drawn.actions):
            raise ValueError(
                f"log_prob: gave shape {tuple(found.shape)} for {len(drawn.actions)} draws; return "
                "one number for each"
            )
        found = found.reshape(len(found), -1)
    return found, "sum_forgotten" if found.shape[1] == size > 1 else ""


def integers(drawn: Drawn) -> Tensor:
    """Draws (S, D) int64; raises ValueError where they are no choices."""
    found = drawn.numbers()
    wrong = found[(found != found.round()) | (found < 0) | (found > MOST)]
    if len(wrong):
        raise ValueError(
            f"{drawn.name}: have {float(wrong[0]):g}, expected whole numbers from 0; give indices"
            + ", or leave out probs=, logits= and log_probs=" * (drawn.name == "sample")
        )
    return found.long()


def farthest(drawn: Tensor, claimed: Tensor, labels: Sequence[str] = ()) -> str:
    """The choice whose share of the draws is farthest from its probability, (D, K) each."""
    component, choice = divmod(int((drawn - claimed).abs().argmax()), drawn.shape[1])
    where = labels[choice] if labels else f"choice {choice}"
    where += f" of component {component}" * (len(drawn) > 1)
    share, probability = float(drawn[component, choice]), float(claimed[component, choice])
    nats = ""
    if min(share, probability) > 0:
        nats = f" ({math.log(probability / share):+.2f} nat)"
    return f"{where} has probability {probability:.3g}, its share of the draws is {share:.3g}{nats}"


def of_pairs(drawn: Drawn, entropy: Any = None) -> Report:
    """The check of choices that came with their log-probabilities alone.

    Rare ones, which another sample might not have, are one choice with all that were not drawn.

    Raises:
        ValueError: log_pi of the same choice differ.
    """
    assert drawn.second is not None
    actions = integers(drawn)
    kinds, chosen = actions.unique(dim=0, return_inverse=True)
    log_pi = drawn.second.double().sum(-1)
    table = torch.zeros(len(kinds), dtype=torch.float64)
    table[chosen] = log_pi
    if not torch.allclose(table[chosen], log_pi, 1e-4, 1e-4):
        where = kinds[chosen[(table[chosen] - log_pi).abs().argmax()]].tolist()
        raise ValueError(
            f"log_pi: differs between pairs with the same choice {where}; give those of one state"
        )
    counts = torch.bincount(chosen)
    common = table.exp() * len(chosen) >= RARE
    rest = (1.0 - table[common].exp().sum()).clamp_min(0.0).log()
    number = torch.where(common, common.cumsum(0) - 1, int(common.sum()))
    known = torch.cat([table[common], rest.unsqueeze(0)])
    # Of rare choices, pairs of the same one: p_i / 2 for each draw i and each other one.
    rare = ~common[chosen]
    expected = 0.5 * (len(chosen) - 1) * float(table.exp()[chosen][rare].sum())
    found = float((counts * (counts - 1) / 2)[~common].sum())
    bound = DEVIATIONS * math.sqrt(expected * (1.0 + 2.0 * RARE)) + FEW_PAIRS
    extra = [
        Trial("pairs of the same rare choice against their number", abs(found - expected), bound)
    ]
    gap = math.nan
    if (claimed := number_of(entropy, False)) is not None:
        gap = float(-log_pi.mean()) - claimed
        chance = DEVIATIONS * float(log_pi.std()) / math.sqrt(len(log_pi))
        extra.append(Trial("|entropy_gap|", abs(gap), chance + INTEGRAL_ERROR))
    table = known.to(drawn.second.dtype)
    labels = [f"choice {', '.join(map(str, kind))}" for kind in kinds[common].tolist()]
    labels.append("any choice that was not drawn")
    if drawn.second.shape[1] == actions.shape[1] > 1:
        extra.append(Trial(SHAPE, 1.0, 0.0))
    return choices(Drawn(number[chosen]), table, None, None, None, tuple(extra), gap, labels)
