"""SAC's three losses by hand, and what each of them may touch."""

import re
import sys

import numpy as np
import pytest
import torch

from agents.off_policy import at_most
from data import Replay, Spec
from envs.envs import Envs
from policies import TanhGaussian
from runtime.accelerate.acceleration import kinds_of_steps
from tests.helpers import agent, batch, saved_and_read
from tests.tracked import ROOT

SPEC = Spec(3, 2, discrete=False)


def noise(seed=0, size=8):
    return torch.randn(2, size, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("policy", ["auto", "tanh_full_gaussian"])
def test_losses_equal_their_formulas(policy):
    learner = agent("sac", SPEC, alpha_init=0.3, policy=policy)
    with torch.no_grad():  # let target and live critic differ
        for parameter in learner.critic_target.parameters():
            parameter.add_(0.05)
    data, eps = batch(8, spec=SPEC), noise()
    losses, _ = learner.losses(data, eps, train_actor=True)
    next_action, next_log_pi = learner.policy(data.next_obs).rsample_with_log_prob(eps[0])
    bootstrap = learner.critic_target(data.next_obs, next_action).min(0).values - 0.3 * next_log_pi
    target = data.reward + 0.99 * (1 - data.terminated.float()) * bootstrap
    q = learner.critic(data.obs, data.action)
    critic = 0.5 * ((q - target) ** 2).mean(1).sum()
    action, log_pi = learner.policy(data.obs).rsample_with_log_prob(eps[1])
    actor = (0.3 * log_pi - learner.critic(data.obs, action).min(0).values).mean()
    log_alpha = learner.temperature.log_alpha
    alpha = -(log_alpha * (log_pi.detach() - 2.0)).mean()
    assert losses["critic"].item() == pytest.approx(critic.item(), rel=1e-5)
    assert losses["actor"].item() == pytest.approx(actor.item(), rel=1e-5)
    assert losses["alpha"].item() == pytest.approx(alpha.item(), rel=1e-5)


def test_the_noise_of_an_update_is_of_the_policys_kind():
    class Uniform(TanhGaussian):
        @staticmethod
        def fill(noise, generator=None):
            return noise.uniform_(3.0, 4.0, generator=generator)

    learner, taken = agent("sac", SPEC), []
    learner.policy_class = Uniform
    learner.step = lambda *arguments: taken.append(arguments[1])
    learner.update(batch(8, spec=SPEC))
    (noise,) = taken
    assert noise.shape == (2, 8, 2)
    assert noise.min() >= 3.0
    assert len(noise.unique()) > 25


def test_each_loss_reaches_its_own_parameters_alone():
    learner = agent("sac", SPEC)
    losses, _ = learner.losses(batch(8, spec=SPEC), noise(), train_actor=True)
    groups = learner.optimizer.groups
    reached = {
        (loss, group): any(
            g is not None and bool(g.any())
            for g in torch.autograd.grad(
                losses[loss], groups[group], retain_graph=True, allow_unused=True
            )
        )
        for loss in losses
        for group in groups
    }
    for loss in losses:
        assert reached[loss, loss]
    assert not reached["critic", "actor"]
    assert not reached["critic", "alpha"]
    assert not reached["actor", "alpha"]
    assert not reached["alpha", "actor"]
    assert not any(p.requires_grad for p in learner.critic_target.parameters())


def test_truncation_bootstraps_and_termination_does_not():
    learner = agent("sac", SPEC)
    data = batch(8, spec=SPEC)
    flags = {"terminated": torch.zeros(8, dtype=torch.bool), "truncated": torch.zeros(8).bool()}
    alpha = torch.tensor(1.0)

    def target(**changes):
        row = data._replace(**{**flags, **changes})
        return learner.soft_target(row, row.next_obs, noise()[0], alpha)

    every = torch.ones(8, dtype=torch.bool)
    assert torch.equal(target(terminated=every), data.reward)
    assert torch.equal(target(truncated=every), target())
    assert not torch.isclose(target(), data.reward).any()


def test_temperature_rises_when_entropy_is_short_of_its_target():
    for target_entropy, rises in ((1.3, True), (-100.0, False)):
        learner = agent("sac", SPEC, target_entropy=target_entropy, log_std_init=-3.0)
        before = learner.temperature.log_alpha.item()
        learner.update(batch(8, spec=SPEC))
        assert (learner.temperature.log_alpha.item() > before) == rises


@pytest.mark.parametrize(
    ("bounds", "most"),
    [((-10.0, 2.0), 0.6836), ((-10.0, -2.0), -0.6), ((0.5, 2.0), 0.31), ((-0.2, 0.0), 0.6836)],
)
def test_a_target_entropy_out_of_reach_is_refused_with_the_most_that_is(bounds, most):
    """The largest entropy is that of the policy itself, maximised over the bounds by hand."""
    log_std = torch.linspace(*bounds, 4001).unsqueeze(-1)
    entropy = TanhGaussian(torch.zeros_like(log_std), log_std).entropy().max().item()
    assert entropy == pytest.approx(most, abs=0.03)
    changes = {"log_std_min": bounds[0], "log_std_max": bounds[1], "log_std_init": sum(bounds) / 2}
    agent("sac", SPEC, target_entropy=2 * entropy - 1e-3, **changes)
    with pytest.raises(ValueError, match=f"reaches at most {at_most(2 * entropy):g}; give less"):
        agent("sac", SPEC, target_entropy=2 * entropy + 1e-3, **changes)
    agent("sac", SPEC, target_entropy=99.0, alpha=0.1, **changes)  # nothing is aimed for


def test_a_policy_of_other_agents_is_refused_with_those_of_this_one():
    words = "is not for this agent with continuous actions; use tanh_gaussian or tanh_full_gaussian"
    with pytest.raises(ValueError, match=f"agent.policy: gaussian {words}"):
        agent("sac", SPEC, policy="gaussian")


def test_fixed_alpha_is_not_learned():
    learner = agent("sac", SPEC, alpha=0.2)
    metrics = learner.update(batch(8, spec=SPEC))
    assert learner.temperature.log_alpha.exp().item() == pytest.approx(0.2)
    assert "loss/alpha" not in metrics
    assert metrics["policy/alpha"].item() == pytest.approx(0.2)


def test_polyak_moves_the_target_by_tau_every_update():
    learner = agent("sac", SPEC, tau=0.25, policy_delay=3)
    for _ in range(4):
        before = [p.clone() for p in learner.critic_target.parameters()]
        learner.update(batch(8, spec=SPEC))
        live = list(learner.critic.parameters())
        for old, new, critic in zip(before, learner.critic_target.parameters(), live, strict=True):
            assert torch.allclose(new, 0.75 * old + 0.25 * critic, atol=1e-6)


@pytest.mark.parametrize("name", ["sac", "sac_discrete"])
def test_the_actor_s_average_follows_and_plays_where_nothing_is_drawn(name):
    spec = SPEC if name == "sac" else Spec(3, 2, discrete=True)
    learner = agent(name, spec, actor_tau=0.25, policy_delay=3)
    plain = agent(name, spec, policy_delay=3)
    average = learner.modules["actor_average"]
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        before = [p.clone() for p in average.parameters()]
        learner.update(batch(8, spec=spec))
        plain.update(batch(8, spec=spec))
        for old, new, live in zip(
            before, average.parameters(), learner.actor.parameters(), strict=True
        ):
            assert torch.allclose(new, 0.75 * old + 0.25 * live, atol=1e-6)
    # it learns and draws as without it, and plays otherwise
    assert all(map(torch.equal, learner.actor.parameters(), plain.actor.parameters()))
    assert torch.equal(learner.act(obs)[0], plain.act(obs)[0])
    with torch.no_grad():
        for parameter in learner.actor.parameters():
            parameter.neg_()  # far from what it was
        played = learner.policy_class(*average(obs)).deterministic()
    assert torch.equal(learner.act(obs, deterministic=True)[0], played)
    assert not torch.equal(played, learner.policy(obs).deterministic())
    other = agent(name, spec, seed=1, actor_tau=0.25)
    other.load_state_dict(saved_and_read(learner.state_dict()))
    assert torch.equal(other.act(obs, deterministic=True)[0], played)


def test_without_an_average_the_actor_plays():
    learner = agent("sac", SPEC)
    assert learner.deterministic_actor is learner.actor
    assert "actor_average" not in learner.modules


@pytest.mark.parametrize("name", ["sac", "sac_discrete"])
@pytest.mark.parametrize(("delay", "kinds"), [(1, 1), (2, 2), (1000, 2)])
def test_updates_are_of_two_kinds_at_most(name, delay, kinds):
    spec = SPEC if name == "sac" else Spec(3, 2, True)
    learner = agent(name, spec, policy_delay=delay)
    fresh = batch(8, spec=spec)
    assert len(kinds_of_steps(learner, fresh)) == kinds


def test_policy_delay_counts_updates():
    learner = agent("sac", SPEC, policy_delay=3)
    moved = []
    for _ in range(7):
        before = next(learner.actor.parameters()).clone()
        learner.update(batch(8, spec=SPEC))
        moved.append(not torch.equal(before, next(learner.actor.parameters())))
    assert moved == [True, False, False, True, False, False, True]


def test_the_full_policy_starts_with_the_diagonal_one_s_losses_and_then_couples():
    """Same draws for all weights, couplings 0: equal to rounding until the first step."""
    learners = [agent("sac", SPEC, policy=p) for p in ("auto", "tanh_full_gaussian")]
    (diagonal, _), (full, _) = (n.losses(batch(8, spec=SPEC), noise(), True) for n in learners)
    for name in diagonal:
        assert diagonal[name].item() == pytest.approx(full[name].item(), rel=1e-5)
    learners[1].update(batch(8, spec=SPEC))
    factor = learners[1].policy(batch(8, spec=SPEC).obs).scale_tril
    assert (factor[:, 1, 0] != 0).all()


def test_a_batch_with_nan_commits_nothing_and_raises_the_flag():
    learner = agent("sac", SPEC, actor_tau=0.5)
    learner.update(batch(8, spec=SPEC))
    before = [p.clone() for m in learner.modules.values() for p in m.parameters()]
    bad = batch(8, spec=SPEC)
    learner.update(bad._replace(reward=torch.full((8,), float("nan"))))
    assert learner.optimizer.diverged
    learner.update(batch(8, spec=SPEC))
    after = [p for m in learner.modules.values() for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("policy", ["auto", "tanh_full_gaussian"])
def test_state_continues_to_the_bit(policy):
    first = agent("sac", SPEC, seed=0, policy_delay=2, policy=policy)
    data = [batch(8, spec=SPEC, seed=s) for s in range(6)]
    for b in data[:3]:
        first.update(b)
    second = agent("sac", SPEC, seed=1, policy_delay=2, policy=policy)
    second.load_state_dict(first.state_dict())
    for b in data[3:]:
        ours, theirs = first.update(b), second.update(b)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["sac", "sac_discrete"])
def test_uniform_actions_are_held_for_so_many_steps_and_cover_the_space(name):
    spec = Spec(3, 4 if name == "sac_discrete" else 1, discrete=name == "sac_discrete")
    held, free = agent(name, spec, explore_hold=3), agent(name, spec)
    obs = torch.zeros(500, 3)
    actions = [held.explore(obs)[0] for _ in range(5)]
    assert [torch.equal(actions[0], a) for a in actions] == [True, True, True, False, False]
    assert torch.equal(actions[3], actions[4])
    others = [free.explore(obs)[0] for _ in range(2)]
    assert torch.equal(others[0], actions[0])  # the same numbers, drawn less often
    assert torch.equal(others[1], actions[3])
    if spec.discrete:  # 125 of each are expected, with a standard deviation of 9.7
        assert min(actions[0].bincount(minlength=4)) > 125 - 4 * 9.7
    else:  # mean 0 +- 0.026, variance 1/3 +- 0.013
        assert abs(actions[0].mean()) < 4 * 0.026
        assert abs(actions[0].var() - 1 / 3) < 4 * 0.0134
        assert actions[0].abs().max() <= 1


@pytest.mark.parametrize(("hold", "least", "most"), [(1, 0, 2), (32, 25, 32)])
def test_held_actions_find_the_flag_that_independent_ones_do_not(hold, least, most):
    """One episode each of 32 cars, of which 95 % were to find it, and 0.2 %."""
    envs = Envs("MountainCarContinuous-v0", 32, "sync", {}, seed=0)
    learner = agent("sac", envs.spec, explore_hold=hold)
    found = np.zeros(32, dtype=bool)
    for _ in range(998):
        found |= envs.step(*learner.explore(envs.obs)).terminated.numpy()
    envs.close()
    assert least <= found.sum() <= most


def test_a_held_action_is_still_held_after_a_resume():
    first, second = (agent("sac", SPEC, seed=seed, explore_hold=4) for seed in (0, 1))
    obs = torch.zeros(2, 3)
    for _ in range(2):
        first.explore(obs)
    second.load_state_dict(saved_and_read(first.state_dict()))
    for _ in range(4):
        assert torch.equal(first.explore(obs)[0], second.explore(obs)[0])


@pytest.mark.parametrize("policy", ["auto", "tanh_full_gaussian"])
def test_gradcheck_of_actor_and_critic_losses(policy):
    learner = agent("sac", SPEC, policy=policy)
    for module in (learner.actor, learner.critic, learner.critic_target, learner.temperature):
        module.double()
    data = batch(4, spec=SPEC)
    data = data._replace(**{n: getattr(data, n).double() for n in ("obs", "action", "reward",
                                                                  "next_obs")})  # fmt: skip
    eps = noise(size=4).double()
    for group in ("critic", "actor", "alpha"):
        weight = learner.optimizer.groups[group][-1]

        def loss(value, weight=weight, group=group):
            old = weight.data.clone()
            weight.data.copy_(value.data)
            result = learner.losses(data, eps, train_actor=True)[0][group]
            gradient = torch.autograd.grad(result, weight)[0]
            weight.data.copy_(old)
            return result.item(), gradient

        base = weight.detach().clone()
        _, gradient = loss(base)
        for index in range(min(3, base.numel())):
            step = torch.zeros_like(base).view(-1)
            step[index] = 1e-6
            step = step.view_as(base)
            numeric = (loss(base + step)[0] - loss(base - step)[0]) / 2e-6
            assert gradient.view(-1)[index].item() == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_the_page_lists_all_files_of_the_core_that_run_while_sac_learns():
    """In at most twelve files and 1,500 lines, which a reader can follow."""
    page = (ROOT / "docs/agent_sac.md").read_text(encoding="utf-8").partition("## Reading the code")
    listed = re.findall(r"^\| \[`([^`]+)`\]", page[2], re.MULTILINE)
    learner, replay = agent("sac", SPEC), Replay(30, 4, 8, 1.0, torch.Generator())
    core, ran = ("agents", "networks", "policies", "data"), {"runtime/loop.py"}

    def note(frame, event, argument):
        path = frame.f_code.co_filename
        if path.startswith(tuple(f"{ROOT}/{folder}/" for folder in core)):
            ran.add(path.removeprefix(f"{ROOT}/"))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for step in range(12):
            fresh = batch(4, spec=SPEC, seed=step)
            act = learner.explore if replay.warming_up else learner.act
            action, latent = act(fresh.obs)
            fresh = fresh._replace(action=action, latent=latent)
            learner.observe(fresh)
            replay.add(fresh)
            for sampled in replay.batches():
                learner.update(sampled)
    finally:
        sys.setprofile(before)
    assert learner.optimizer.updates > 30
    assert set(listed) == ran
    assert len(listed) <= 12
    assert (
        sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in listed) <= 1500
    )
