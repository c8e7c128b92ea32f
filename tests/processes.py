"""Start a test file as several processes of torch.distributed, and collect what they found."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch

TIMEOUT = timedelta(minutes=2)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_processes(script, folder, num_processes):
    """Run a script that calls :func:`fork_processes`; return what each of its processes passed to :func:`finish`."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    with subprocess.Popen([sys.executable, script, str(folder)], env=environment, start_new_session=True) as started:
        try:
            assert started.wait(timeout=2 * TIMEOUT.total_seconds()) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of them have ended
                os.killpg(started.pid, signal.SIGKILL)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(num_processes)]


def call_in_place_of_a_script(main, argv, errors, largest_file=None):
    """Call ``main(argv)`` in a new process, as its whole work.

    Args:
        main: the function.
        argv: its argument.
        errors: file for the error output.
        largest_file: size in bytes that no file may exceed, as if the disk were full.
    """
    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    main(argv)


def fork_processes(run, folder):
    """Call ``run(folder)`` in WORLD_SIZE processes. Forking saves each of them the time to import torch."""
    torch.set_num_threads(1)
    for rank in range(int(os.environ["WORLD_SIZE"])):
        if os.fork() == 0:
            os.environ["RANK"] = str(rank)
            try:
                run(folder)
            except BaseException:
                traceback.print_exc()
            os._exit(1)  # run calls finish, so it does not return
    for _ in range(int(os.environ["WORLD_SIZE"])):
        if os.wait()[1] != 0:
            sys.exit(1)  # the caller kills the processes that wait for the one that failed


def finish(found, folder):
    """Save what this process found, and end it."""
    torch.save(found, Path(folder) / f"{os.environ['RANK']}.pt")
    torch.distributed.barrier()  # a process that leaves while another still works may abort as its connections go
    torch.distributed.destroy_process_group()
    os._exit(0)  # without the end of the interpreter, at which a thread of torch's may abort the process
