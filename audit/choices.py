"""The check of a policy that chooses among K actions, or among K in each of D components."""

import math
from typing import Any

import torch
from torch import Tensor

from audit.density import Finding, Trial, examine_choices
from audit.forms import FORMS
from audit.given import Drawn, called, floats, number_of
from audit.recognition import recognise_choices
from audit.report import Report

FORBIDDEN = 1e-6  # the largest probability of what a mask forbids
MOST = 100_000  # choices
FEW = 500  # draws that are scored one at a time
EPSILON = "log_with_epsilon"  # a mistake that only the sum of the probabilities shows


def table_of(
    policy: Any, drawn: Drawn, probs: Any, logits: Any, log_probs: Any, mask: Any
) -> Tensor | None:
    """Log-probabilities (K,) or (D, K), as given, or as a discrete policy has them.

    Raises:
        ValueError: more than one was given, or something else than probabilities.
    """
    given = {"probs": probs, "logits": logits, "log_probs": log_probs}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise ValueError(f"{', '.join(named)}: are one too many; give one of them")
    if not named:
        found = [(name, getattr(policy, name, None)) for name in ("log_probs", "logits")]
        named = {name: value for name, value in found if getattr(value, "ndim", 0) > 0}
    for name, value in named.items():
        values = floats(value, name).detach()
        if name == "probs" and bool((values < 0).any()):
            raise ValueError(f"probs: {float(values.min()):g} is negative; or are they logits=?")
        if name == "log_probs" and bool((values > 1e-3).any()):
            raise ValueError(f"log_probs: {float(values.max()):g} is above 0; or are they logits=?")
        if bool(values.isnan().any()):
            raise ValueError(f"{name}: have NaN; give numbers")
        if name == "logits":
            if mask is not None:
                values = values.masked_fill(~floats(mask, "mask").bool(), -math.inf)
            return values.double().log_softmax(-1)
        return values.double().log() if name == "probs" else values.double()
    return None


def report(
    drawn: Drawn,
    log_prob: Any,
    entropy: Any,
    table: Tensor | None,
    mask: Any = None,
    exact: bool = False,
) -> Report:
    """Checks integer draws against the log-probabilities claimed for them.

    Args:
        drawn: (S,) or (S, D) integers from 0.
        log_prob: of actions shaped like the draws, where there is one.
        entropy: a number or a function, where there is one.
        table: (K,) or (D, K) claimed; by default log_prob of every choice.
        mask: of the table's shape, True where a choice is permitted.
        exact: whether the table was computed in float64.

    Raises:
        ValueError: in one line with the remedy.
    """
    actions = integers(drawn.actions)
    size = actions.shape[1]
    if table is None:
        table = every(log_prob, drawn, int(actions.max()), size)
    rows = table.view(-1, table.shape[-1])
    if len(rows) != size or table.ndim > 2:
        raise ValueError(
            f"probs: shape {tuple(table.shape)} does not fit draws of {size} components; give "
            f"{'(K,)' if size == 1 else f'({size}, K)'}"
        )
    permitted = torch.ones_like(rows, dtype=torch.bool)
    if mask is not None:
        permitted = floats(mask, "mask").bool().reshape(-1, rows.shape[-1])
        if permitted.shape != rows.shape or not bool(permitted.any(-1).all()):
            raise ValueError(
                f"mask: shape {tuple(permitted.shape)} for probabilities {tuple(rows.shape)}, or "
                "nothing is permitted; give True where a choice is permitted"
            )
    log_pi = scored(log_prob, drawn)
    number = number_of(entropy, size > 1)
    finding = examine_choices(actions, [*rows], log_pi, number)
    trials = list(finding.trials)
    outside = ~permitted
    if bool(outside.any()):
        claimed = float(torch.where(outside, rows.exp(), 0.0).sum(-1).max())
        taken = [row[column] for row, column in zip(permitted, padded(actions, rows), strict=True)]
        shares = 1.0 - float(torch.stack(taken).double().mean())
        trials.append(Trial("share of the draws that the mask forbids", shares, 0.0))
        trials.append(Trial("probability of what the mask forbids", claimed, FORBIDDEN))
    names: tuple[str, ...] = ()
    counts = [torch.bincount(c, minlength=rows.shape[-1]) for c in padded(actions, rows)]
    for row, count, allowed in zip(rows, counts, permitted, strict=True):
        names = names or recognise_choices(row, count, None if mask is None else allowed)
    if all(trial.passed for trial in trials):
        names = names if exact and names == (EPSILON,) else ()
        trials.append(Trial("known mistakes that fit to rounding", float(len(names)), 0.0))
    verdict = words(finding, trials, rows, counts, names, len(actions))
    return Report(verdict, tuple(trials), finding.curves, names[0] if names else None)


def scored(log_prob: Any, drawn: Drawn) -> Tensor | None:
    """What log_prob, or `sample` itself, gives for the draws, (S,); None where it is neither."""
    if log_prob is None:
        second = drawn.others()
        return None if second is None or drawn.second.dtype == drawn.dtype else second.sum(-1)
    if drawn.batch:  # one at a time
        some = [called("log_prob", log_prob, action) for action in drawn.actions[:FEW]]
        return torch.stack([floats(one, "log_prob").detach().double().sum() for one in some])
    found = floats(called("log_prob", log_prob, drawn.actions), "log_prob").detach().double()
    if found.numel() % len(drawn.actions) or not found.ndim:
        raise ValueError(
            f"log_prob: gave shape {tuple(found.shape)} for {len(drawn.actions)} draws; return one "
            "number for each"
        )
    return found.reshape(len(drawn.actions), -1).sum(-1)


def padded(actions: Tensor, rows: Tensor) -> list[Tensor]:
    """The draws of each component, none above the last choice that has a probability."""
    return [column.clamp_max(rows.shape[-1] - 1) for column in actions.T]


def integers(actions: Any) -> Tensor:
    """(S, D) int64; raises ValueError where they are no choices."""
    found = floats(actions, "sample").detach().double()
    found = found.reshape(len(found), -1)
    if bool((found != found.round()).any()) or float(found.min()) < 0 or float(found.max()) > MOST:
        worst = found[(found != found.round()) | (found < 0) | (found > MOST)][0]
        raise ValueError(
            f"sample: drew {float(worst):g}, expected whole numbers from 0; draw indices, or leave "
            "out probs=, logits= and log_probs="
        )
    return found.long()


def every(log_prob: Any, drawn: Drawn, largest: int, size: int) -> Tensor:
    """log_prob of all choices (K,), also of some beyond those that were drawn."""
    if log_prob is None or size > 1:
        raise ValueError(
            f"log_probs: the draws are choices of {size} component(s), and it is not known among "
            "how many; give probs=, logits= or log_probs="
        )
    for count in (2 * largest + 20, largest + 1):
        try:
            choices = torch.arange(count, dtype=drawn.dtype)
            given = choices.to(drawn.actions.device) if drawn.is_tensor else choices.numpy()
            found = floats(called("log_prob", log_prob, given), "log_prob").detach().double()
        except ValueError:
            if count == largest + 1:
                raise
        else:
            return found.reshape(count)
    raise AssertionError


def words(
    finding: Finding,
    trials: list[Trial],
    rows: Tensor,
    counts: list[Tensor],
    names: tuple[str, ...],
    draws: int,
) -> str:
    failed = [trial.name for trial in trials if not trial.passed]
    if not failed and not names:
        return f"right: {draws:,} draws are as frequent as their probabilities, which sum to 1"
    parts = []
    if any("forbids" in name for name in failed):
        parts.append("what the mask forbids is drawn, or has a probability")
    if "|normaliser - 1|" in failed or names == (EPSILON,):
        parts.append(f"the probabilities sum to {finding.normaliser:.9g}")
    if any("frequencies" in name for name in failed):
        shares = torch.stack(counts) / draws
        error = shares - rows.exp()
        component, choice = divmod(int(error.abs().argmax()), rows.shape[-1])
        where = f"choice {choice}" + f" of component {component}" * (len(rows) > 1)
        drawn, claimed = float(shares[component, choice]), float(rows[component, choice].exp())
        nats = f", {math.log(claimed / drawn):+.2f} nat" if min(drawn, claimed) > 0 else ""
        parts.append(
            f"{where} is claimed with probability {claimed:.3g}, drawn with {drawn:.3g}{nats}"
        )
    if any("joint" in name for name in failed):
        parts.append("log_prob of the draws is not the sum of the claimed log-probabilities")
    if "|entropy_gap|" in failed:
        side = "low" if finding.entropy_gap > 0 else "high"
        parts.append(f"entropy() is too {side} by {abs(finding.entropy_gap):.2g} nat")
    texts = [FORMS[name].text for name in names[:3]]
    looks = "looks like " + ", or ".join(texts) if texts else "unknown error"
    return f"wrong: {'; '.join(parts)}: {looks}"
