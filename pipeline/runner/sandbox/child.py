"""The process of a sandbox: makes one image after the other, and may die of one.

`parent` starts it with ``python -m pipeline.runner.sandbox.child``. Both ends speak in pickles, over its standard input
and output: it is given its equipment and then images; it names each stage that it begins, and gives the image back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.domain import Stage
from pipeline.runner.images import Carried, Equipment
from pipeline.runner.sandbox.parent import MEMORY_EXIT_CODE
from pipeline.stages.codec import let_pillow_open

# Whoever has started it ends it in time; should he be gone himself, it ends on its own.
_OVERTIME_S: Final = 30.0
# Of 16 megapixels, `restore` takes 360 MB while it works.
_MODEL_BYTES: Final = 2**30
# Modules that are imported on use, and the allocator's.
_OWN_BYTES: Final = 64 * 2**20


def main() -> None:
    """Serve until the input ends."""
    inbox, outbox = sys.stdin.buffer, _take_output()
    _volunteer_for_the_kernel()
    equipment_type, *parameters = pickle.load(inbox)
    equipment: Equipment = equipment_type(*parameters)
    let_pillow_open(equipment.job.limits.max_pixels)
    _limit_memory(_memory_for(equipment))

    def begin(stage: Stage) -> None:
        _send(outbox, stage)
        timeout_s = equipment.timeout_s(stage) + _OVERTIME_S
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.stderr)

    _send(outbox, None)
    try:
        while True:
            carried = pickle.load(inbox)
            _send(outbox, _make(equipment, carried, begin))
            faulthandler.cancel_dump_traceback_later()
    except EOFError:
        pass
    except MemoryError:
        # The rest of it may stand in the pipe: nothing more can be read.
        sys.exit(MEMORY_EXIT_CODE)


def _make(equipment: Equipment, carried: Carried, begin: Callable[[Stage], None]) -> Carried:
    for stage, step in equipment.computing_steps:
        if not carried.is_over:
            begin(stage)
            carried = step(carried)
    return carried


def _take_output() -> BinaryIO:
    """Keep standard output for us: what a library prints goes where errors go."""
    outbox = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return outbox


def _send(outbox: BinaryIO, message: object) -> None:
    pickle.dump(message, outbox, pickle.HIGHEST_PROTOCOL)
    outbox.flush()


def _volunteer_for_the_kernel() -> None:
    """If the machine runs out of memory, this process is the one to end."""
    if sys.platform == "linux":
        # Some containers do not have it.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def _memory_for(equipment: Equipment) -> int:
    """Return the bytes that may be taken for an image: itself, its file, and at least what a model needs to work."""
    memory_bytes = equipment.job.limits.memory_bytes
    return max(memory_bytes, _MODEL_BYTES if equipment.card else 0) + equipment.job.fetch.max_bytes + _OWN_BYTES


def _limit_memory(memory_bytes: int) -> None:
    """Have what goes beyond the limit fail; only Linux counts what a process really may write to."""
    if sys.platform == "linux":
        import resource

        (now_kib,) = (
            int(line.split()[1])
            for line in Path("/proc/self/status").read_text("ascii").splitlines()
            if line.startswith("VmData:")
        )
        most = now_kib * 1024 + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


if __name__ == "__main__":
    main()
