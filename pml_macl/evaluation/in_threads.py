"""Independent chunks of work on a CPU, one thread each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def in_threads(function: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> Iterator[Result]:
    """Apply a function to each chunk, in as many threads as torch has, and yield the results in order.

    A chunk has one thread from its first operation to its last, which on a CPU is faster than to share out each small
    operation and wait for it. For the time of it torch's number of threads is 1; no gradients are recorded.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1 or len(chunks) == 1:
        yield from map(function, chunks)
        return

    def call(chunk: Chunk) -> Result:
        with torch.no_grad():  # it holds for the thread that says so
            return function(chunk)

    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(call, chunks)
    finally:
        torch.set_num_threads(num_threads)
