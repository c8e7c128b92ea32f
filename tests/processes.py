"""Start a test file as several processes of torch.distributed, and collect what they found."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import runpy
import signal
import socket
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch

PRELOAD = [
    "pytest",
    "train",
    "pml_macl.evaluation",
    "pml_macl.losses",
    "pml_macl.miners",
    "torchvision.transforms.v2",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "PIL.PngImagePlugin",
]
TIMEOUT = timedelta(minutes=2)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def forkserver():
    """The context of a process that has imported most of what tests need, and from which new processes are forked.

    It starts with the first process, and ends with the tests.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    examples = str(Path(__file__).resolve().parents[1] / "examples")
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join([examples, os.environ.get("PYTHONPATH", "")])):
        multiprocessing.forkserver.ensure_running()
    return context


def run_processes(script, folder, num_processes):
    """Run a script that calls :func:`fork_processes`; return what each of its processes passed to :func:`finish`."""
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "CUDA_VISIBLE_DEVICES": "",
    }
    process = forkserver().Process(target=run_as_script, args=(script, str(folder), environment))
    process.start()
    try:
        process.join(2 * TIMEOUT.total_seconds())
        assert process.exitcode == 0
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(num_processes)]


def run_as_script(script, folder, environment):
    """Run a file as ``python script folder`` would, in a session of its own."""
    os.setsid()
    os.environ.update(environment)
    sys.argv = [script, folder]
    runpy.run_path(script, run_name="__main__")


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
