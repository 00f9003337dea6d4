"""Write ``.keras`` files that are the same, byte for byte, for the same network."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def write_network(network: Any, path: Path) -> None:
    """Save a network without the times and memory addresses that Keras puts into the file.

    Its SHA-256 then says what the file holds, and anybody can make the file again.

    Parameters
    ----------
    network : keras.Model
    path : Path
        Ends in ``.keras``.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / path.name
        network.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    metadata = json.loads(content)
                    del metadata["date_saved"]
                    content = json.dumps(metadata).encode()
                if name == "config.json":
                    content = _numbered(content.decode()).encode()
                target.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)


def _numbered(config: str) -> str:
    """Replace the ids of shared objects, which are memory addresses, by their order."""
    number = itertools.count()
    numbers: defaultdict[str, int] = defaultdict(lambda: next(number))
    return re.sub(r'(?<="shared_object_id": )\d+', lambda match: str(numbers[match[0]]), config)
