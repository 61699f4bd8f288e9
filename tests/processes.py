"""A program in two processes that share its work, as ``accelerate launch`` starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path


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
    return [run.communicate(timeout=600)[0] for run in runs]
