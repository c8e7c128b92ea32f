"""Start a test file as several processes of torch.distributed, and collect what they found."""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch

TIMEOUT = timedelta(minutes=2)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_processes(script, folder, num_processes):
    """Run ``script FOLDER`` as processes; return what each of them passed to :func:`finish`."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, script, str(folder)]
    started = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in range(num_processes)]
    try:
        for process in started:
            assert process.wait(timeout=2 * TIMEOUT.total_seconds()) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(num_processes)]


def finish(found, folder):
    """Save what this process found, and end it."""
    torch.save(found, Path(folder) / f"{os.environ['RANK']}.pt")
    torch.distributed.barrier()  # a process that leaves while another still works may abort as its connections go
    torch.distributed.destroy_process_group()
    os._exit(0)  # without the end of the interpreter, at which a thread of torch's may abort the process
