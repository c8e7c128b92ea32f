"""Computes independent chunks of work on a CPU, each in one thread."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_lock = threading.Lock()


def map_in_threads(function: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> Iterator[Result]:
    """Apply a function to each chunk in worker threads and yield the results in order.

    There are as many workers as the calling thread has torch threads. Each worker runs torch on one thread. The numbers
    of torch threads of all other threads stay as they are. Workers record no gradients and do not inherit the caller's
    autocast setting. If there is only one chunk or one torch thread, the calling thread does the work.

    Args:
        function: computes the result of one chunk.
        chunks: arguments of the function.

    Yields:
        One result per chunk.
    """
    # On two CPU cores, 3,000 queries x 3,000 references take 0.09 s this way, and 0.11 s if torch splits each small
    # operation among its threads. If other work runs on the same cores, they take 0.2 to 0.3 s instead of 1 s, because
    # no thread waits for another. Command: benchmarks/evaluation.py compare --sizes 3000 --runs pml_macl
    num_workers = min(num_torch_threads(), len(chunks))
    if num_workers <= 1:
        yield from map(function, chunks)
        return

    def call(chunk: Chunk) -> Result:
        with torch.no_grad():  # this setting is per thread
            return function(chunk)

    with ThreadPoolExecutor(num_workers, initializer=_use_one_thread) as pool:
        yield from pool.map(call, chunks)


def num_torch_threads() -> int:
    """Return how many threads torch uses in the calling thread, while no worker is being set up.

    A thread copies torch's default number when it first calls torch, and the setup of a worker changes this default for
    about 0.1 ms. A thread that evaluates therefore calls this function before it calls torch.
    """
    with _lock:
        return torch.get_num_threads()


def _use_one_thread() -> None:
    """Let torch use one thread in this new thread, without a change for other threads."""
    with _lock:
        default = torch.get_num_threads()
        torch.set_num_threads(1)  # also sets torch's default for threads that start later
        # Only set_num_threads changes the default, so another thread must call it to restore the default.
        restorer = threading.Thread(target=torch.set_num_threads, args=(default,))
        restorer.start()
        restorer.join()
