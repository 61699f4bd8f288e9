"""A program in two processes that share its work, as ``accelerate launch`` starts them."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="starts processes by fork")

FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true", "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_MIN_NUM_PARAMS": "100000000", "FSDP_SHARDING_STRATEGY": "FULL_SHARD", "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_FORWARD_PREFETCH": "false", "FSDP_ACTIVATION_CHECKPOINTING": "false",
}  # fmt: skip
"""What ``accelerate launch --use_fsdp --fsdp_version 2`` tells its processes."""


def printed(program: str, *arguments: str, folder: Path | None = None) -> list[str]:
    """Run a program in a folder, this one when left out, and return what each process prints."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    environment = os.environ | group | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=environment | {"RANK": rank, "LOCAL_RANK": rank},
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        return [run.communicate(timeout=600)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()


def forked(task: Callable[[], object], **environment: str) -> None:
    """Do something in two processes that share what this one has loaded; neither may fail."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    context = multiprocessing.get_context("fork")
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    children = [context.Process(target=_join, args=(task, group | environment | rank)) for rank in ranks]
    end = time.monotonic() + 600
    for child in children:
        child.start()
    try:
        # One that has failed leaves the other waiting for it.
        while (left := [child for child in children if child.is_alive()]) and not any(one.exitcode for one in children):
            if not wait([child.sentinel for child in left], end - time.monotonic()):
                break
        codes = [child.exitcode for child in children]
    finally:
        for child in children:
            child.kill()
            child.join()
    assert codes == [0, 0]


def _join(task: Callable[[], object], environment: dict[str, str]) -> None:
    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    os.environ |= environment
    for state in (GradientState, AcceleratorState, PartialState):
        state._reset_state()
    torch.set_num_threads(1)
    task()
    torch.distributed.destroy_process_group()
