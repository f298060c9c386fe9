"""What README and docs say can be typed, opened and found."""

import importlib
import re
import shlex
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import evaluate
from agents import AGENTS
from configs import help
from configs.agents import AGENT_GROUPS
from configs.compose import GROUPS, train_config
from configs.schema import EvaluateConfig, TrainConfig
from configs.sweep import read_sweep
from configs.validate import key_names
from envs.envs import Envs
from runtime.launch.door import enter
from tests.tracked import ROOT, copied, files, tracked

PAGES = [ROOT / "README.md", *files("docs/*.md")]
TEXT = {page.name: page.read_text() for page in PAGES}


def commands(pattern, *more):
    found = [m for text in [*TEXT.values(), *more] for m in re.findall(pattern, text)]
    return sorted({m.split("  #")[0].strip() for m in found})


SHOWN = re.sub(r" {3,}.*", "", help.USAGE["train"].partition("\n")[2])  # without the remarks


@pytest.mark.parametrize("command", commands(r"train\.py((?:\\\n|[^`\n|])*)[`\n|]", SHOWN))
def test_every_train_command_composes(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nobody followed it before
    command = command.replace("\\\n", " ").removesuffix(')"')  # of eval "$(python train.py ...)"
    arguments = [a for a in shlex.split(command) if "ANY-v0" not in a]
    if "-m" in arguments:
        read_sweep(arguments)
    elif not any(re.match("resume=(?!auto)", a) for a in arguments):  # of a run that is not here
        assert enter("train", lambda config: 0, arguments) == 0


ANY_AGENT = {key for agent in AGENT_GROUPS for key in key_names(TrainConfig, agent)}
TOOLS = [
    f"{folder}.{path.stem}"
    for folder in ("tools", "bench")
    for path in files(f"{folder}/*.py")
    if re.search(r"^(def main\(|main = )", path.read_text(), re.MULTILINE)
    and path.stem != "contestant"  # a process of bench.py
]


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_says_how_it_is_used(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    assert importlib.import_module(tool).main(["--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: python {tool.replace('.', '/')}.py")
    assert said.err == ""


@pytest.mark.parametrize(
    "command", commands(r"python ((?:(?:tools|bench)/\w+|evaluate)\.py(?:\\\n|[^`\n|])*)[`\n|]")
)
def test_every_key_of_a_command_is_one_that_its_help_names(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    path, *arguments = shlex.split(command.replace("\\\n", " ").replace("...", ""))
    if path == "evaluate.py":
        assert enter("evaluate", evaluate.run, ["--help"]) == 0
    else:
        if not (ROOT / path).exists():  # a command of the past, with its revision
            path = path.replace("tools/", "bench/")
        tool = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert tool.main(["--help"]) == 0
    said = capsys.readouterr().out
    of_training = [*GROUPS, *key_names(TrainConfig), *ANY_AGENT] if "[KEY=VALUE" in said else []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        named = re.search(rf"(?<![\w.]){re.escape(name)}(=|  )", said)
        assert not equals or named or name in of_training or name.startswith("env.kwargs."), name


def test_twenty_questions_have_a_command_and_a_link_each():
    """The tests above follow them; `resume`, `run` and `policy` are of a run that is not here."""
    _, *questions = re.split(r"^## ", TEXT["how_do_i.md"], flags=re.M)
    assert len(questions) == 20
    for question in questions:
        title, block, answer = re.fullmatch(
            r"(.*\?)\n\n```\n(.*?)```\n(.*)", question, re.S
        ).groups()
        assert re.match(r"(python|tensorboard) ", block), title
        assert re.search(r"\]\([\w.#-]+\.md[^)]*\)", answer), title


@pytest.mark.parametrize("page", sorted({*TEXT} - {"results.md", "reliability.md"}))
def test_what_a_page_says_a_file_contains_is_in_it(page):
    """Names behind that of a file; the two pages left out quote past commits."""
    names = r"`(?:\.\./)?([\w/]+\.py)`(?:\]\([^)]*\))?((?:[,·\s]*`[\w.]+`)+)"
    for file, quoted in re.findall(names, TEXT[page]):
        code = (ROOT / file).read_text() if (ROOT / file).exists() else ""
        for name in re.findall(r"`([\w.]+)`", quoted):
            last = name.rpartition(".")[2]
            if last == "py":
                break
            assert re.search(rf"(def |class |^){last}\b", code, re.M), f"{file}: {name}"


@pytest.mark.parametrize("target", commands(r"(?m)(?:^|`)make ([a-z-]+)"))
def test_every_make_target_exists(target):
    if target in ("things", "sure"):
        return
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(
    ("page", "link"),
    [(n, m) for n, text in TEXT.items() for m in re.findall(r"\]\(([^)#:]+)\)", text)],
)
def test_every_link_leads_somewhere(page, link):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    assert (folder / link).exists()


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", TEXT[page], re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    ("page", "anchor"),
    sorted(
        found
        for text in TEXT.values()
        for found in re.findall(r"\]\((?:docs/)?([\w.]*)#([^)]+)\)", text)
    ),
)
def test_every_anchor_is_a_heading(page, anchor):
    assert anchor in headings(page)


COMMON = [
    "rollout/return",
    "rollout/length",
    "eval/return_mean",
    "eval/return_std",
    "eval/length_mean",
    "policy/entropy",
    "policy/log_prob_mean",
    "policy/log_prob_std",
    "policy/log_prob_min",
    "policy/log_prob_max",
    "loss/actor",
    "loss/critic",
    "value/mean",
    "value/target_mean",
    "value/explained_variance",
    "value/td_abs",
    "grad_norm/actor",
    "grad_norm/critic",
    "train/lr",
    "time/steps_per_second",
    "time/updates_per_second",
    "policy/log_prob_q05",
    "policy/log_prob_q50",
    "policy/log_prob_q95",
    "verification/pit_ks",
    "verification/normaliser",
    "verification/entropy_gap",
    "brief/1_return",
    "brief/2_evaluation",
    "brief/3_best_evaluation",
    "brief/4_steps_per_s",
    "brief/5_log_prob",
    "brief/6_entropy",
]
DISCRETE = ["policy/action_share/0", "policy/action_share/1", "policy/effective_actions"]
CONTINUOUS = ["policy/log_std_mean", "policy/saturation", "ledger/gaussian/0", "ledger/scale/0"]
SQUASHED = [*CONTINUOUS, "ledger/jacobian/0"]
LEARNED_ALPHA = [
    *("policy/target_entropy", "policy/alpha", "loss/alpha", "grad_norm/alpha"),
    *("brief/7_target_entropy", "brief/8_alpha"),
]
RUNS = {
    "a2c": (["total_steps=600", "env.num_envs=4", "agent.n_steps=5"], COMMON + DISCRETE),
    "a2c-continuous": (
        ["env=pendulum", "total_steps=1700", "env.num_envs=4", "agent.n_steps=5"],
        COMMON + CONTINUOUS,
    ),
    "ppo": (
        [
            "agent=ppo",
            "env.id=CartPole-v1",
            "total_steps=1200",
            "env.num_envs=4",
            "agent.n_steps=50",
            "agent.batch_size=100",
            "agent.epochs=2",
        ],
        [*COMMON, *DISCRETE, "policy/kl", "policy/clip_fraction"],
    ),
    "sac_discrete": (
        [
            "agent=sac_discrete",
            "env.id=CartPole-v1",
            "total_steps=300",
            "agent.learning_starts=100",
            "agent.batch_size=32",
        ],
        COMMON + DISCRETE + LEARNED_ALPHA,
    ),
    "sac": (
        [
            "env=pendulum",
            "env.num_envs=1",
            "agent=sac",
            "total_steps=300",
            "agent.learning_starts=100",
            "agent.batch_size=32",
        ],
        COMMON + SQUASHED + LEARNED_ALPHA,
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_writes_exactly_the_tags_that_apply_and_all_are_explained(name, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from train import run

    arguments, expected = RUNS[name]
    path = tmp_path / "run"
    small = ["agent.hidden=[8,8]", "eval.episodes=2", "eval.every=1000"]
    assert enter("train", run, [*arguments, *small, f"run_dir={path}"]) == 0
    events = EventAccumulator(str(path))
    events.Reload()
    tags = events.Tags()
    assert sorted(tags["scalars"]) == sorted(expected)
    assert tags["images"] == ["verification/actions"]
    assert sorted(tags["histograms"]) == ["policy/action", "policy/log_prob"]
    last = {tag: events.Scalars(tag)[-1].step for tag in ("policy/entropy", "eval/return_mean")}
    assert (
        last["policy/entropy"]
        == last["eval/return_mean"]
        >= int(next(a for a in arguments if a.startswith("total_steps")).split("=")[1])
    )
    for tag in [*tags["scalars"], *tags["histograms"]]:
        tag = re.sub(r"/\d$", "/0", tag)  # one row for all components
        family = tag.rsplit("_", 1)
        assert f"`{tag}`" in TEXT["logging.md"] or (
            f"`{family[0]}_mean`, " in TEXT["logging.md"]
            and f"`_{family[1]}`" in TEXT["logging.md"]
        ), tag


@pytest.mark.slow
def test_the_quick_start_can_be_followed(tmp_path):
    blocks = re.findall(r"```\n(.*?)```", TEXT["quickstart.md"], re.S)
    lines = [line for line in "".join(blocks).splitlines() if line.startswith("python ")]
    assert len(lines) == 8
    for line in lines:
        script, *arguments = shlex.split(line.replace("total_steps=4000", "total_steps=600"))[1:]
        if script == "train.py" and not any("resume" in a for a in arguments):
            arguments.append("total_steps=400")  # a sweep of six in half a minute
        command = [sys.executable, ROOT / script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), line
    assert list(tmp_path.glob("runs/first/0/video/*.mp4"))


def test_the_tutorial_runs_and_its_loss_is_the_agents():
    code = "".join(re.findall(r"```python\n(.*?)```", TEXT["tutorial.md"], re.S))
    assert code.count("assert") > 10
    pasted = f"{code}print('to the end')\n"
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=pasted, cwd=ROOT, capture_output=True, text=True
    )
    assert set(done.stderr.split()) <= {">>>", "..."}  # its prompts, and no error
    assert "to the end" in done.stdout


def test_the_environment_of_the_page_is_well_and_trains(tmp_path, monkeypatch, capsys):
    from tools import doctor
    from train import run

    (code,) = re.findall(r"```python\n(.*?)```", TEXT["environments.md"], re.S)
    own = "hover_of_the_page"  # beside train.py there may be a hover.py of the reader's
    (tmp_path / f"{own}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "elsewhere", lambda *_: None)  # see tests/tools/test_doctor.py
    assert doctor.main([f"env.id={own}:Hover-v0"]) == 0
    said = capsys.readouterr().out
    assert "warning" not in said
    (saved,) = re.findall(r"```yaml\n(.*?)```", TEXT["environments.md"], re.S)
    assert said.endswith(saved.replace("hover:", f"{own}:"))
    fitting = " or ".join(f"agent={name}" for name in AGENTS if AGENTS[name].fitting("continuous"))
    assert f"{fitting}\n" in said
    short = ["agent=ppo", "total_steps=16", "agent.n_steps=2", "agent.batch_size=16"]
    where = [f"env.id={own}:Hover-v0", f"run_dir={tmp_path / 'run'}", "eval.episodes=1"]
    assert enter("train", run, [*where, *short]) == 0


def applied(page, root):
    """Applies the blocks of a page in their order: new files, commands, and changed lines."""
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.M | re.S):
        if kind == "python":
            (root / re.findall(r'"""([\w/]+\.py):', block)[0]).write_text(block)
        elif kind == "diff":
            name, *lines = block.splitlines()
            old, new = (
                "".join(f"{line[1:]}\n" for line in lines if not line.startswith(left_out))
                for left_out in "+-"
            )
            text = (root / name).read_text()
            assert f"\n{text}".count(f"\n{old}") == 1, f"{name} has no such place:\n{block}"
            (root / name).write_text(f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:])
        else:
            subprocess.run(block, shell=True, cwd=root, check=True)


ADDED = """
import sys
import pytest, train
from runtime.launch.door import enter
short = ["env=pendulum", "total_steps=64", "eval.episodes=0", "agent.hidden=[8]", "threads=1"]
for own in (
    ["agent=reinforce", "agent.policy=laplace", "agent.n_steps=4"],
    ["agent=sac", "agent.critic_activation=silu", "agent.learning_starts=60"],
):
    assert enter("train", train.run, [*short, *own, f"run_dir={own[0]}"]) == 0
names = ("agents/test_joins", "agents/test_registries", "configs/test_compose")
words = "reinforce or laplace or of_the_schema or every_agent_is"
sys.exit(pytest.main([*(f"tests/{name}.py" for name in names), "-k", words]))
"""


def test_what_the_page_adds_trains_and_passes_the_tests_of_agents(tmp_path):
    copied(tmp_path, [path for path in tracked() if path.suffix in (".py", ".yaml", ".toml")])
    applied(TEXT["extending.md"], tmp_path)
    command = [sys.executable, "-c", ADDED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 10


def test_the_table_of_keys_is_that_of_the_schema():
    new = help.markdown() + "\n"
    assert new == TEXT["configuration.md"], "python -m configs.help > docs/configuration.md"
    assert sorted(set(re.findall(r"^\| `([a-z_.]+)`", TEXT["configuration.md"], re.M))) == sorted(
        {*key_names(EvaluateConfig), *(k for a in AGENT_GROUPS for k in key_names(TrainConfig, a))}
        - {"agent.name"}
    )


@pytest.mark.parametrize("agent", AGENT_GROUPS)
def test_every_agent_has_a_page_whose_keys_exist(agent):
    page = TEXT.get(f"agent_{agent}.md", "")
    named = re.findall(r"`(agent\.[a-z_]+)", page)
    assert named, f"docs/agent_{agent}.md is missing, or names no key"
    assert set(named) <= set(key_names(TrainConfig, agent))


RECIPES = commands(r"\| `(python train\.py[^`]*env\.wrappers[^`]*)` \|", TEXT["wrappers.md"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_wrappers_of_the_page_can_be_put_around(recipe):
    for library, word in (("cv2", "Resize"), ("Box2D", "CarRacing"), ("minigrid", "minigrid")):
        if word in recipe:
            pytest.importorskip(library)
    env = train_config(shlex.split(recipe)[2:]).env
    envs = Envs(env.id, 1, "sync", env.kwargs, 0, wrappers=env.wrappers)
    envs.close()
    assert len(RECIPES) == 7


def test_the_graph_of_the_page_becomes_a_vector(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(\"\"\"nodes.*?)```", TEXT["wrappers.md"], re.S)
    (tmp_path / "nodes_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    wrapper = {"name": "nodes_of_the_page:FirstNodes", "nodes": 3}
    envs = Envs("tests.test_docs:Graphs-v0", 1, "sync", {}, 0, wrappers=[wrapper])
    assert envs.obs.view(3, 2).tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


class Graphs(gymnasium.Env):
    observation_space = gymnasium.spaces.Graph(gymnasium.spaces.Box(0.5, 2.0, (2,)), None)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        nodes = np.ones((2, 2), np.float32)
        return gymnasium.spaces.GraphInstance(nodes, None, None), {}


gymnasium.register("Graphs-v0", entry_point=Graphs)
