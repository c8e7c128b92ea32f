"""Files that are written completely or not at all: checkpoints, trained models and cached features."""

import io
import os
import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch


def save_file(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` with ``torch.save``, and replace ``path`` in one step.

    If the process dies at any moment, ``path`` holds either the old content or the new one.

    Raises:
        OSError: the file cannot be written; ``path`` stays as it is.
    """
    buffer = io.BytesIO()  # if torch wrote the file itself, its error would not name the cause, such as a full disk
    torch.save(content, buffer)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file under the final name
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the file: {error.strerror}", str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def load_file(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """Load onto the CPU what :func:`save_file` wrote. Loading runs no code from the file.

    Args:
        path: the file.
        keys: the keys that the content must have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or another program or version wrote it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch.load does not compare the checksums
                raise zipfile.BadZipFile("a checksum is wrong")
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or was not written by these examples ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} was not written by these examples ({reason})") from error
    missing = sorted(set(keys) - set(content)) if isinstance(content, dict) else sorted(keys)
    if missing:
        raise ValueError(f"{path} was not written by this version of the examples: it lacks {', '.join(missing)}")
    return content
