"""What a person sees in TensorBoard, read through its own plugins."""

import json

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams.api_pb2 import ListSessionGroupsRequest
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from runtime.curves import read_scalars
from runtime.launch.door import enter
from runtime.logger import Logger
from storage.rundir import read_result
from tests.helpers import saved_and_read
from tests.runtime.test_logger import read
from train import run as train

SHORT = [
    "agent.lr_schedule=constant",
    *("agent=sac_discrete", "agent.learning_starts=20", "agent.batch_size=8", "agent.hidden=[8]"),
    *("total_steps=60", "log.every=30", "eval.every=30", "eval.episodes=1", "threads=1"),
]
STATUSES = (0, 1, 2, 3)


def opened(folder):
    """What `tensorboard --logdir FOLDER` gives its plugins."""
    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(str(folder))
    runs.Reload()
    return TBContext(logdir=str(folder), data_provider=MultiplexerDataProvider(runs, ""))


def hparams(board):
    """(names of the settings, those that differ first; names of metrics; a row for each run)."""
    context, request = Context(board), RequestContext()
    content = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(
        request, "", True, content, context.hparams_from_data_provider(request, "", 0)
    )
    groups = Handler(
        request, context, "", ListSessionGroupsRequest(allowed_statuses=STATUSES, slice_size=100)
    ).run()
    rows = {
        group.name: {
            **{
                name: value.string_value or value.number_value
                for name, value in group.hparams.items()
            },
            **{one.name.tag: one.value for one in group.metric_values},
        }
        for group in groups.session_groups
    }
    differing = {info.name for info in experiment.hparam_infos if info.differs}
    return differing, [info.name.tag for info in experiment.metric_infos], rows


def train_all(folder):
    for name, own in {"slow": ["agent.lr=0.001"], "fast": ["agent.lr=0.003"]}.items():
        assert enter("train", train, [*SHORT, *own, f"run_dir={folder / name}"]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    train_all(folder)
    return folder


def test_a_sweep_can_be_sorted_in_the_tab_hparams_and_a_resumed_run_stays_one_row(folder):
    resumed = ["total_steps=80", f"resume={folder / 'slow'}"]
    before = hparams(opened(folder))
    assert enter("train", train, resumed) == 0
    begun = (folder / "slow" / "commands.txt").read_text().splitlines()[::2]
    assert begun == ["# step 0", "# step 60"]
    differing, metrics, rows = hparams(opened(folder))
    assert differing == before[0] == {"agent.lr"}
    first = ["1_return", "2_evaluation", "3_best_evaluation", "4_steps_per_s", "5_log_prob"]
    assert metrics[:5] == [f"brief/{name}" for name in first]  # as many are shown
    assert {name: row["agent.lr"] for name, row in rows.items()} == {"slow": 0.001, "fast": 0.003}
    assert rows["fast"] == before[2]["fast"]
    for name, row in rows.items():
        curve = [value for _, value in read_scalars(folder / name, "eval/return_mean")]
        assert row["brief/2_evaluation"] == pytest.approx(read_result(folder / name)["return_mean"])
        assert row["brief/3_best_evaluation"] == max(curve)
        assert row["brief/4_steps_per_s"] > 0
        assert (row["agent.name"], row["env.id"], row["seed"]) == ("sac_discrete", "CartPole-v1", 0)
        assert row["total_steps"] == 60  # as it began, of one that is resumed, too
        assert not {"env.timeout", "threads", "eval.every"} & {*row}  # which a resumed run changes


def test_the_first_group_is_what_matters_and_the_last_is_that_of_audits(folder):
    events = read(folder / "fast")
    tags = sorted(events.Tags()["scalars"])
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in tags))
    assert (groups[0], groups[-1]) == ("brief", "verification")
    assert sum(tag.startswith("brief/") for tag in tags) == 8
    for copy, tag in (("6_entropy", "policy/entropy"), ("8_alpha", "policy/alpha")):
        one, other = (events.Scalars(name) for name in (f"brief/{copy}", tag))
        assert [(e.step, e.value) for e in one] == [(e.step, e.value) for e in other]


def charts(folder):
    layout = CustomScalarsPlugin(opened(folder)).layout_impl(RequestContext(), "")
    (category,) = json.loads(layout)["category"]
    return [
        chart.get("multiline", {}).get("tag") or [*chart["margin"]["series"][0].values()]
        for chart in category["chart"]
    ]


def test_the_overview_has_what_a_run_has_and_losses_apart(folder, tmp_path):
    shown = charts(folder)
    assert shown[0] == ["rollout/return", "eval/return_mean"]
    assert ["policy/entropy", "policy/target_entropy"] in shown
    assert shown[-3:] == [["loss/actor"], ["loss/critic"], ["loss/alpha"]]
    assert {tag for chart in shown for tag in chart} <= {*read(folder / "fast").Tags()["scalars"]}
    logger, resumed = (Logger(tmp_path / "a", purge_step=step) for step in (None, 3))
    for step, tag in ((1, "loss/actor"), (2, "rollout/return")):
        logger.write(step, {tag: 1.0})
    resumed.load_state_dict(saved_and_read(logger.state_dict()))
    resumed.write(3, {"policy/alpha": 1.0})
    returns = ["rollout/return", "eval/return_mean"]
    assert charts(tmp_path) == [returns, ["policy/alpha"], ["loss/actor"]]
