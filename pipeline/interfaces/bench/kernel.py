"""How much a job and its live widget keep a notebook's kernel from other work.

``python -m pipeline.interfaces.bench.kernel [PHOTOGRAPHS]`` starts a kernel (with what ``image-pipeline[jupyter]``
installs), runs a job in it, and meanwhile has the kernel's event loop say every 5 ms how late it is woken: once with
nothing else to do, once beside the job. What it measures includes the operating system's own delays while the job's
workers keep every core busy: the third figure is that of a process that does nothing else, at the same time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

PULSE_S: Final = 0.005
PATIENCE_S: Final = 300

# A module of its own, so that a process without a kernel can measure the same.
PULSE: Final = f"""
import asyncio, json, time
async def beat(seconds, lags):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.monotonic()
        await asyncio.sleep({PULSE_S})
        lags.append(time.monotonic() - before - {PULSE_S})
def describe(lags):
    lags = sorted(lags)
    return {{"median_ms": 1000 * lags[len(lags) // 2], "p99_ms": 1000 * lags[int(0.99 * len(lags))],
            "max_ms": 1000 * lags[-1], "beats": len(lags)}}
"""

RUN: Final = """
import pipeline
job = pipeline.run({photographs!r}, {results!r}, pipeline.Recipe(enhance="restore"))
"""


def main() -> None:
    """Measure, and print JSON lines."""
    from jupyter_client.manager import start_new_kernel

    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        photographs = sys.argv[1] if len(sys.argv) > 1 else str(_make_photographs(Path(folder)))
        manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
        try:
            _execute(client, PULSE)
            _show("idle kernel", _beat(client, 5))
            _execute(client, RUN.format(photographs=photographs, results=f"{folder}/results"))
            _execute(client, "while not job.progress.stored: time.sleep(0.1)")
            other = subprocess.Popen([sys.executable, "-c", f"{PULSE}{_LONELY}"], stdout=subprocess.PIPE, text=True)
            _show("kernel with a job", _beat(client, 10))
            _show("another process meanwhile", json.loads(other.communicate()[0]))
            _execute(client, "job.cancel(); job.wait()")
        finally:
            client.stop_channels()
            manager.shutdown_kernel()


_LONELY: Final = "lags = []\nasyncio.run(beat(10, lags))\nprint(json.dumps(describe(lags)))"


def _make_photographs(folder: Path) -> Path:
    from pipeline.interfaces.demo.corpus import make_corpus

    make_corpus(folder / "photographs", 400)
    return folder / "photographs"


def _beat(client: Any, seconds: float) -> dict[str, float]:
    code = f"lags = []\nawait beat({seconds}, lags)\nprint(json.dumps(describe(lags)))"
    started_at_s = time.monotonic()
    printed, messages = _execute(client, code)
    return {**json.loads(printed), "widget_messages_per_second": messages / (time.monotonic() - started_at_s)}


def _execute(client: Any, code: str) -> tuple[str, int]:
    """Run a cell as a notebook does; return what it printed, and how many messages went to widgets meanwhile."""
    request = client.execute(code, allow_stdin=True)
    printed, messages = "", 0
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE_S)
        kind, content = message["msg_type"], message["content"]
        messages += kind == "comm_msg"
        if kind == "error":
            raise SystemExit("\n".join(content["traceback"]))
        if kind == "stream" and content["name"] == "stdout":
            printed += content["text"]
        if kind == "status" and content["execution_state"] == "idle" and message["parent_header"]["msg_id"] == request:
            return printed, messages


def _show(what: str, figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps({"what": what, **{name: round(value, 2) for name, value in figures.items()}}) + "\n")


if __name__ == "__main__":
    main()
