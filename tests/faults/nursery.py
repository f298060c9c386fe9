"""Forks children that run a door, as new processes that need no time to import: `-m` this module.

Lines of JSON on its input: {"start": [arguments], "cwd": ..., "out": file} -> {"pid": ...}, and
{"wait": pid} -> {"code": ...} (None while it runs; -9 where it was killed by signal 9).
"""

import atexit
import contextlib
import json
import os
import signal
import sys
import time
from functools import partial

import gymnasium.envs.classic_control  # noqa: F401, ready in every child, as all that follow
import PIL.ImageDraw  # noqa: F401
import tensorboard.summary.writer.record_writer  # noqa: F401
import torch.utils.tensorboard.summary  # noqa: F401

import runtime.session
import train
from agents import make_agent  # noqa: F401
from common.errors import ConfigError
from configs import compose, files, help  # noqa: F401
from runtime.launch.door import enter
from runtime.launch.signals import Stop
from tests.conftest import remembering


def child(order: dict) -> None:
    """Never returns."""
    os.setpgid(0, 0)
    os.chdir(order["cwd"])
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    prepare = order.get("prepare")
    if prepare:
        PREPARATIONS[prepare["name"]](**prepare.get("with", {}))
    code = 1
    try:
        code = enter("train", partial(train.run, stop=Stop().install()), order["start"])
    finally:
        atexit._run_exitfuncs()  # as any program does at its end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_at(stage: int) -> None:
    """Kills this process by signal 9 just before storage operation number `stage`.

    Where that is to write a file, half of it is there.
    """
    left = [stage]

    def counted(operation):
        def call(*arguments, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return operation(*arguments, **options)

        return call

    def half_written(operation):
        def call(path, content):
            if left[0] == 0:
                path.write_bytes(content[: len(content) // 2])
            return counted(operation)(path, content)

        return call

    import shutil
    from pathlib import Path

    from storage import files as operations
    from storage import rundir

    for module in (operations, rundir):
        module.write_synced = half_written(module.write_synced)
    os.fsync = counted(os.fsync)
    shutil.rmtree = counted(shutil.rmtree)
    for name in ("mkdir", "rename", "unlink", "write_text", "replace"):
        setattr(Path, name, counted(getattr(Path, name)))


def limit_files(size: int) -> None:
    """No file of this process may grow beyond `size` bytes: a disk that is full."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def hang_in_a_save() -> None:
    """A checkpoint is synced for ever: a disk, or a network between, that does not answer."""
    sync = os.fsync

    def hang(descriptor):
        saving = "/tmp-" in os.readlink(f"/proc/self/fd/{descriptor}")
        return time.sleep(1000) if saving else sync(descriptor)

    os.fsync = hang


PREPARATIONS = {made.__name__: made for made in (die_at, limit_files, hang_in_a_save)}


def main() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` would have it ignore
    assert runtime.session
    files.composed = remembering(files.composed)  # composed here, once for all children
    ended: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            with contextlib.suppress(ConfigError):  # which the child raises again
                compose.train_config(order["start"])
            pid = os.fork()
            if pid == 0:
                child(order)
            answer = {"pid": pid}
        else:
            pid = order["wait"]
            if pid not in ended:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = {"code": ended.get(pid)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
