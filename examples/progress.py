"""Progress bars that leave the output readable."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

from pytorch_metric_learning.utils.common_functions import LOGGER
from tqdm import tqdm


def is_unexpected(record: logging.LogRecord) -> bool:
    return not re.fullmatch(r'optimizers is missing "\w+"', record.getMessage())


@contextmanager
def tidy_output() -> Iterator[None]:
    """Show progress bars only on a terminal and remove each when it is full; silence two warnings of PML's trainer.

    PML makes its bars with ``tqdm`` and has no option for them, so this changes the defaults of ``tqdm``. The trainer
    formats a loss that still has its graph, and torch warns about that. The trainer also warns about a model without an
    optimizer, such as a frozen trunk.
    """
    original = tqdm.__init__
    tqdm.__init__ = partialmethod(original, disable=None, leave=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True", UserWarning)
            LOGGER.addFilter(is_unexpected)
            yield
    finally:
        LOGGER.removeFilter(is_unexpected)
        tqdm.__init__ = original
