"""Independent chunks of work on a CPU, one thread each."""

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

    There are as many workers as the calling thread has torch threads, and each worker runs torch on one thread. The
    number of torch threads of every other thread stays as it is. Workers record no gradients and know nothing of the
    caller's autocast. A single chunk, or a single thread, is computed by the caller itself.

    Args:
        function: what to compute.
        chunks: its arguments.

    Yields:
        One result per chunk.
    """
    # On two CPUs, 3,000 queries x 3,000 references take 0.09 s this way and 0.11 s where torch shares out each small
    # operation; beside other work on the same CPUs 0.2 to 0.3 s instead of 1 s, because no thread waits for another.
    # The command: benchmarks/evaluation.py compare --sizes 3000 --runs pml_macl
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
    """How many threads torch uses in the calling thread, asked when no worker is just being set up.

    A thread takes over torch's default when it first runs something in torch, and a worker's setup changes the default
    for some 0.1 ms. So a thread that evaluates asks this before anything else.
    """
    with _lock:
        return torch.get_num_threads()


def _use_one_thread() -> None:
    """Let torch use one thread in this new thread, and leave the threads that already run alone."""
    with _lock:
        default = torch.get_num_threads()
        torch.set_num_threads(1)  # for this thread, but also torch's default for threads that start later ...
        restorer = threading.Thread(target=torch.set_num_threads, args=(default,))
        restorer.start()  # ... which another short-lived thread restores, since torch has no other way to do it
        restorer.join()
