"""Names of data sets, lists and bounds in words, for the pages that the reports write."""

from collections.abc import Iterable, Sequence

DATA_SETS = {"ucm_multilabel": "UC Merced (multi-label)", "ml_aid": "ML-AID"}

# Training, validation and test images in the splits that AiTLAS publishes.
SPLIT_SIZES = {"ucm_multilabel": (1285, 395, 420), "ml_aid": (1917, 483, 600)}


def data_name(folder: str) -> str:
    """The name that people use for the data set in this folder; an unknown folder keeps its name."""
    return DATA_SETS.get(folder, folder)


def split_sizes(folders: Iterable[str]) -> str:
    """A line of a list with the number of images in each split of the data sets in these folders, as far as known."""
    sizes = ["{}: {} / {} / {}".format(data_name(name), *SPLIT_SIZES[name]) for name in folders if name in SPLIT_SIZES]
    end = "training / validation / test images, in the split that AiTLAS publishes"
    return f"- **Data:** {'; '.join(sizes)} {end}.\n" * bool(sizes)


def listed(parts: Sequence[str]) -> str:
    """Join parts as in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as ``1 seed``, ``3 seeds`` or ``2 losses``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def bounds(low: float, high: float, digits: int = 1) -> str:
    """An interval with signs, such as ``-0.3 to +1.2``."""
    # A bound of -0.0 keeps its sign, since it tells on which side of 0 the interval ends.
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign; what rounds to 0 is ``+0.0``."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"
