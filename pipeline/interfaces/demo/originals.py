"""The photographs of the package as they are, for whoever wants to try something on one of them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pipeline.interfaces.demo.corpus import PHOTOGRAPHS


def copy_originals(folder: Path) -> list[Path]:
    """Copy the six photographs, which are in the public domain or CC0, into a folder.

    Parameters
    ----------
    folder : Path
        Made if it is not there.

    Returns
    -------
    list of Path
        Such as ``folder/coffee.jpg``: between 451 × 300 and 1411 × 1411 pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copies = [folder / f"{name}.jpg" for name in PHOTOGRAPHS]
    for copy in copies:
        copy.write_bytes((files("pipeline.interfaces.demo") / "photographs" / copy.name).read_bytes())
    return copies
