"""Measure the peak memory of a block of code, and name what it runs on."""

import os
import resource
import threading
from pathlib import Path

import torch

MIB = 2**20


def machine_name(device):
    """What a page says the numbers are from: the model of the GPU, or the number of CPU cores."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"


class PeakMemory:
    """Context manager that samples the resident memory of this process every 2 ms.

    After the block, ``total`` is the peak and ``growth`` its growth, in MiB. On a GPU, ``growth`` is that of the memory
    that torch allocated there.
    """

    def __init__(self, device="cpu"):
        self.is_cuda = device == "cuda"

    def __enter__(self):
        self.start = self.total = self.now()
        if self.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.allocated = torch.cuda.memory_allocated()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        if self.is_cuda:
            self.growth = (torch.cuda.max_memory_allocated() - self.allocated) / MIB
        else:
            self.growth = self.total - self.start

    def watch(self):
        while not self.done.wait(0.002):
            self.total = max(self.total, self.now())

    @staticmethod
    def now():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB
