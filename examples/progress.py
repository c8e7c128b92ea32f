"""Progress bars that leave the output readable."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

from tqdm import tqdm


@contextmanager
def tidy_output() -> Iterator[None]:
    """Show progress bars only on a terminal and remove each when it is full; silence one warning of PML's trainer.

    PML makes its bars with ``tqdm`` and has no option for them, so this changes the defaults of ``tqdm``. PML's trainer
    also formats a loss that still has its graph, and torch warns about that.
    """
    original = tqdm.__init__
    tqdm.__init__ = partialmethod(original, disable=None, leave=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True", UserWarning)
            yield
    finally:
        tqdm.__init__ = original
