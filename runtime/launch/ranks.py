"""One run in several processes, as torchrun starts them, and the messages between them.

Without torchrun there is one process, rank 0 of 1, and nothing is sent.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from agents.optimizer import Peers
from common.errors import ConfigError, Elsewhere, Halt, LogpiError, Stopped, as_data, failure
from common.seeding import derive
from common.tree import pack, unpack
from configs.automatic import processes
from configs.schema import TrainConfig
from runtime.launch.signals import Stop
from storage.rundir import existing

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)  # for a rank that evaluates or saves


@dataclass(eq=False)
class Ranks(Peers):
    """All processes of a run; every process makes the same calls in the same order.

    Raises:
        LogpiError: another process is gone; the last checkpoint is good.
    """

    rank: int = 0  # of this process; 0 decides, logs, evaluates and commits checkpoints
    size: int = 1
    local: int = 0  # its number on this machine, which is that of its GPU
    neighbours: int = 1  # processes on this machine, itself among them
    control: Any = None  # the group of the CPUs, for all that is no gradient
    store: Any = None  # torchrun's, which outlives every rank

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """The first words of the command that starts as many processes again."""
        if self.size == 1:
            return "python"
        if self.neighbours < self.size:  # how the machines meet is not known here
            return "the same torchrun"
        return f"torchrun --standalone --nproc-per-node={self.size}"

    def own(self, config: TrainConfig) -> TrainConfig:
        """Its part of a run: steps, warm-up, GPU, and the seed of all but the first weights."""
        if self.size == 1:
            return config
        agent: Any = config.agent
        if not agent.on_policy:
            warm_up = math.ceil(agent.learning_starts / self.size)
            agent = dataclasses.replace(agent, learning_starts=warm_up)
        return dataclasses.replace(
            config,
            agent=agent,
            device=f"cuda:{self.local}" if config.device == "cuda" else config.device,
            total_steps=config.total_steps // self.size,
            seed=config.seed if self.first else derive(config.seed, "rank", self.rank),
        )

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's mean over the ranks: one message for all of them."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with reaching():
            dist.all_reduce(flat)
        pieces = (flat / self.size).split([tensor.numel() for tensor in tensors])
        return [piece.view_as(t) for piece, t in zip(pieces, tensors, strict=True)]

    def gather(self, rows: Tensor, group: Any = None) -> Tensor:
        """The rows (B, ...) of all ranks, (size B, ...), by rank."""
        found = [torch.empty_like(rows) for _ in range(self.size)]
        with reaching():
            dist.all_gather(found, rows.contiguous(), group)
        return torch.cat(found)

    def most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        with reaching():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return int(found)

    def collect(self, content: bytes) -> list[bytes]:
        """The contents of all ranks, by rank, on all of them."""
        if self.size == 1:
            return [content]
        marked = content + b"\1"  # the last byte that is not 0
        padded = bytearray(marked.ljust(self.most(len(marked)), b"\0"))
        found = self.gather(torch.frombuffer(padded, dtype=torch.uint8), self.control)
        return [row.numpy().tobytes().rstrip(b"\0")[:-1] for row in found.chunk(self.size)]

    def pieces(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """The states of all ranks, on all of them; without copying where there is one rank."""
        if self.size == 1:
            return [state]
        return [unpack(content) for content in self.collect(pack(state))]

    def agreed(self, fault: LogpiError | None) -> LogpiError | None:
        """The error of the first rank with one, on all ranks."""
        if self.size == 1:
            return fault
        own = json.dumps(as_data(fault) if fault else {}).encode()
        for rank, content in enumerate(self.collect(own)):
            if found := json.loads(content):
                return failure({**found, "message": by(rank, found["message"])})
        return None

    def together(self, work: Callable[[], T]) -> T:
        """`work` on each rank; if it fails on some, all raise the failure of the first of these."""
        fault: LogpiError | None = None
        try:
            result = work()
        except LogpiError as error:
            fault = error
        if first := self.agreed(fault):
            raise first
        return result

    def decided(self, work: Callable[[], Any]) -> Any:
        """The result of `work` on rank 0 alone, plain data, on all of them; or its failure."""
        if self.size == 1:
            return work()
        result = self.together(lambda: work() if self.first else None)
        return json.loads(self.collect(json.dumps(result).encode())[0])

    def found(self, run_dir: str | None) -> Path | None:
        """The directory of a run that has begun; None where there is none yet.

        Raises:
            ConfigError: rank 0 has it, and another rank does not see it.
        """
        path = self.decided(lambda: str(existing(run_dir) or ""))
        unseen = ConfigError(
            f"run_dir: {path} is not there, and the first process has it; "
            "give a folder that all machines share"
        )
        if fault := self.agreed(unseen if path and existing(path) is None else None):
            raise fault
        return Path(path) if path else None

    def check(self, stop: Stop) -> None:
        """Raises Stopped on all ranks, after the same step, if a signal has come to any of them."""
        if self.size == 1:
            stop.check()
        elif code := self.most(stop.noted.code if stop.noted else 0):
            raise stop.noted or Stopped("stopped: by a signal to another rank", code)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Prints and reports failures on one rank: 0, or the first to fail by itself."""
        try:
            with ExitStack() as silence:
                if not self.first:
                    nowhere = silence.enter_context(open(os.devnull, "w"))
                    silence.enter_context(redirect_stdout(nowhere))
                    silence.enter_context(redirect_stderr(nowhere))
                yield
        except Halt as halt:
            raise halt if self.first else Elsewhere(halt.stopped.code) from None
        except LogpiError as error:
            if not (self.first if error.shared else self.first_to_report()):
                raise Elsewhere(error.code) from None
            if not error.shared:
                error.args = (by(self.rank, str(error)),)
            raise
        if self.control is not None:  # after a failure it could wait for a rank that is gone
            dist.destroy_process_group()

    def first_to_report(self) -> bool:
        """Whether no other rank has reported yet why the run ends."""
        try:
            return self.store is None or self.store.add("has spoken", 1) == 1
        except RuntimeError:  # torchrun is gone, too
            return True


ALONE = Ranks()


@contextmanager
def reaching() -> Iterator[None]:
    """Turns a failed message into the LogpiError for a process that has ended."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's are of this kind
        raise LogpiError(
            "another process of this run has ended or is stuck; the same command with resume=auto "
            "continues from the last checkpoint"
        ) from error


def by(rank: int, message: str) -> str:
    return f"rank {rank}: {message}" if rank else message


def meet(device: str) -> Ranks:
    """The processes that torchrun has started, connected; one process without torchrun.

    By NCCL for gradients between GPUs, by gloo for everything else.

    Raises:
        ConfigError: the processes of this machine cannot have a GPU each.
    """
    size = processes()
    if size == 1:
        return Ranks()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    require_devices(device, neighbours)
    with reaching():
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=LONGEST_WAIT)
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        store = dist.distributed_c10d._get_default_store()
    return Ranks(int(os.environ["RANK"]), size, local, neighbours, control, store)


def require_devices(device: str, neighbours: int) -> None:
    """Raises ConfigError where the processes of this machine cannot have a GPU each."""
    if not device.startswith("cuda"):
        return
    if not dist.is_nccl_available():
        raise ConfigError(
            "device: several processes need NCCL to use GPUs, which this torch does not have; "
            "use device=cpu"
        )
    if device != "cuda" and neighbours > 1:
        raise ConfigError(
            f"device: {device} cannot be that of {neighbours} processes; use device=cuda, "
            "which gives each its own"
        )
    if torch.cuda.device_count() < neighbours:
        raise ConfigError(
            f"device: {neighbours} processes need a GPU each, and this machine has "
            f"{torch.cuda.device_count()}; start as many, or use device=cpu"
        )
