"""Train an agent: `python train.py`, or `python train.py env=pendulum agent=sac seed=1`."""

import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if (ROOT := str(Path(__file__).resolve().parent)) not in sys.path:  # with PYTHONSAFEPATH it is not
    sys.path.insert(0, ROOT)

from common.errors import Stopped, warn
from configs.flags import SWEEP
from configs.schema import TrainConfig
from runtime.console import number
from runtime.launch.door import enter
from runtime.launch.signals import Stop

if TYPE_CHECKING:
    from runtime.evaluation import Evaluation
    from runtime.launch.ranks import Ranks

STARTED = time.perf_counter()


def run(config: TrainConfig, stop: Stop | None = None) -> int:
    """Builds the parts, makes or finds the run directory and trains; returns the exit code."""
    stop = stop or Stop()
    stop.open()
    from runtime.build import torch_as_found
    from runtime.launch.ranks import meet

    try:
        ranks = meet(config.device)
        with ranks.part(), torch_as_found():
            return learn(config, stop, ranks)
    except Exception:
        if stop.at_once:  # an import that a signal broke off may raise something else
            stop.check()
        raise


def learn(config: TrainConfig, stop: Stop, ranks: "Ranks") -> int:
    """The part of one rank, which without torchrun is the only one."""
    from configs.resume import modules_in
    from runtime import session
    from runtime.initial import begin_from
    from runtime.saver import Saver
    from storage import checkpoint, provenance, rundir
    from storage.lock import locked

    if ranks.first and (why := provenance.head()[1]):
        warn(f"the run's revision is not recorded: {why}")
    path = ranks.found(config.run_dir) if config.resume else None
    if path and (how := ranks.decided(partial(rundir.finished, path, config, ranks.launcher))):
        if checkpoint.names(path):
            warn(*checkpoint.load_newest(path, config=config)[2])
        print(f"run {path} is finished; {how}")
        return 0
    config, parts = ranks.together(lambda: session.make(config, ranks, begun=path is not None))
    try:
        initial, repeated = None, config.env.id if modules_in(config.env) else ""
        if config.init and ranks.decided(lambda: not (path and checkpoint.names(path))):
            initial = ranks.together(partial(begin_from, config, parts))
        if path is None:
            stop.hold(ranks.size)  # from its folder on, until the run is saved
        path = Path(ranks.decided(lambda: str(path or session.begin(config))))
        with locked(path) if ranks.first else nullcontext():
            saver = Saver(path, config, parts, STARTED, ranks)
            known = ranks.decided(lambda: bool(checkpoint.names(path)))
            if config.resume not in (None, "auto") or known:
                warn(*saver.restore())
            if ranks.first:
                session.announce(saver, initial)
            try:
                evaluation = session.run(saver, stop)
            except Stopped as stopped:
                raise stopped.at(f"{path}", repeated, ranks.launcher) from None
    finally:
        parts.close()
    print(f"{ending(evaluation)}; {time.perf_counter() - saver.started:.1f} s in all")
    print(f"run directory: {path}\n{session.next_commands(path, repeated)}")
    return 0


def ending(evaluation: "Evaluation | None") -> str:
    """The final evaluation, as a line."""
    if evaluation is None:
        return "nothing was evaluated (eval.episodes=0)"
    summary = evaluation.summary()
    mean, deviation = number(summary["return_mean"]), number(summary["return_std"])
    count = len(evaluation.returns)
    episodes = f"over {count} episode{'s' * (count > 1)}"
    cut = f", {evaluation.cut} of them cut short" if evaluation.cut else ""
    return f"final evaluation: return {mean}, deviation {deviation}, {episodes}{cut}"


if __name__ == "__main__":
    if {*SWEEP}.intersection(sys.argv):
        from runtime.launch.sweep import sweep

        sys.exit(sweep(sys.argv[1:]))
    stop = Stop().install()
    code = enter("train", partial(run, stop=stop), sys.argv[1:])
    stop.restore()
    sys.exit(code)
