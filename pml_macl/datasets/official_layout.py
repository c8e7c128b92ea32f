"""The folder layout of a published data set after unpacking."""

import os
from dataclasses import dataclass
from pathlib import Path

from pml_macl.checks import check_path


@dataclass(frozen=True)
class OfficialLayout:
    """Describes what the root folder of a data set must contain, and where to get the data.

    Attributes:
        name: name of the data set.
        source: where to get the data.
        entries: the files that the root contains, as patterns such as ``Images/<scene>/<name>.tif``. :meth:`find` looks
            for the first part of each: a folder if more parts follow, otherwise a file.
    """

    name: str
    source: str
    entries: tuple[str, ...]

    def find(self, root: str | os.PathLike[str]) -> list[Path]:
        """Return the path of each entry's first part; raise FileNotFoundError if one is missing."""
        check_path("root", root)
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder} for {self.name}. {self.how_to_fix(folder)}")
        found = []
        for entry in self.entries:
            first, *inside = entry.split("/")
            path = folder / first
            if not (path.is_dir() if inside else path.is_file()):
                there = ", ".join(sorted(os.listdir(folder))[:5]) or "nothing"
                kind = "folder" if inside else "file"
                raise FileNotFoundError(f"no {kind} {path} for {self.name}; found {there}. {self.how_to_fix(folder)}")
            found.append(path)
        return found

    def how_to_fix(self, root: Path) -> str:
        """Return the sentence that says where to get the data and what the root must contain."""
        return f"Get the data from {self.source}; {root} must then hold {', '.join(self.entries)}"
