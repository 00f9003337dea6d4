"""A load generator for `pipeline serve`, and what it measures.

``python -m pipeline.interfaces.bench.service URL TOKEN IMAGE_URL WHAT [COUNT [IMAGES [SIDE]]]``, where WHAT is
``submit``, ``jobs``, ``follow`` or ``storm``, and SIDE the box's, in pixels. The server needs limits that allow the
load; ``storm`` also needs REDIS_URL, whose Pub/Sub connections it cuts. Connections are bounded in number and time.
Delays are exact where an image is a batch of its own, that is, takes half a second.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

_SUBMIT_S: Final = 10.0
_PATIENCE_S: Final = 180.0

_VERSION: Final = re.compile(rb'"version": (\d+)')
_STORED: Final = re.compile(rb'"stored": (\d+)')
_STATE: Final = re.compile(rb'"status": "(\w+)"')

OnStored = Callable[[int, float], None]


@dataclass(slots=True)
class Follower(asyncio.Protocol):
    """A WebSocket client in as few steps as possible, so that thousands fit beside the server on two cores."""

    request: bytes
    job_id: str
    on_stored: OnStored
    ended: asyncio.Future[str]
    ended_at: float = 0.0
    transport: asyncio.Transport | None = None
    buffer: bytearray = field(default_factory=bytearray)
    is_open: bool = False
    version: int = -1
    went_back: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        self.buffer += data
        if not self.is_open:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._end(head.decode("latin-1"))
                return
            self.buffer, self.is_open = rest, True
            self._send(0x1, json.dumps({"type": "subscribe", "jobId": self.job_id}).encode())
        while frame := self._next_frame():
            self._read(*frame)

    def connection_lost(self, error: Exception | None) -> None:
        """End without a final state."""
        self._end("lost")

    def close(self) -> None:
        """Go."""
        if self.transport:
            self.transport.close()

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 127, 2
        if length == 126:
            length, start = int.from_bytes(buffer[2:4]), 4
        elif length == 127:
            length, start = int.from_bytes(buffer[2:10]), 10
        if len(buffer) < start + length:
            return None
        frame = buffer[0] & 15, bytes(buffer[start : start + length])
        del buffer[: start + length]
        return frame

    def _read(self, opcode: int, payload: bytes) -> None:
        if opcode == 0x9:
            self._send(0xA, payload)
        if opcode != 0x1:
            return
        # Not as JSON: that would take the server's time, on the same two cores.
        version, stored, state = (pattern.search(payload) for pattern in (_VERSION, _STORED, _STATE))
        if not version or not stored or not state:
            self._end(payload.decode())
            return
        self.went_back = self.went_back or int(version[1]) <= self.version
        self.version = int(version[1])
        self.on_stored(int(stored[1]), time.time())
        if state[1] in {b"completed", b"failed", b"cancelled"}:
            self.ended_at = time.time()
            self._end(state[1].decode())

    def _send(self, opcode: int, payload: bytes) -> None:
        assert self.transport is not None
        mask = secrets.token_bytes(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self.transport.write(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def _end(self, how: str) -> None:
        if not self.ended.done():
            self.ended.set_result(how)


class Load:
    """Somebody who uses a service a lot."""

    def __init__(self, base_url: str, token: str, image_url: str, side: int) -> None:
        self.base_url, self.token, self.image_url, self.side = base_url.rstrip("/"), token, image_url, side
        self.headers = {"Authorization": f"Bearer {token}"}

    def body(self, number: int = 0, count: int = 1) -> dict[str, Any]:
        """Return a submission of small images, all different."""
        urls = [f"{self.image_url}?v={number}-{index}" for index in range(count)]
        options = {"maxWidth": self.side, "maxHeight": self.side}
        return {"imageUrl": urls[0], "options": options} if count == 1 else {"imageUrls": urls, "options": options}

    async def submit_job(self, session: aiohttp.ClientSession, number: int = 0, count: int = 1) -> str:
        """Submit one job; return its id."""
        async with session.post(f"{self.base_url}/jobs", json=self.body(number, count), headers=self.headers) as answer:
            answered = await answer.json()
            if answer.status != 202:
                raise SystemExit(f"{answer.status}: {answered}")
            return str(answered["jobId"])

    async def measure_submissions(self, clients: int) -> dict[str, Any]:
        """``POST /jobs`` of one URL, over and over, on several connections."""
        done, until = 0, time.monotonic() + _SUBMIT_S

        async def submit(session: aiohttp.ClientSession) -> None:
            nonlocal done
            while time.monotonic() < until:
                await self.submit_job(session, done)
                done += 1

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(submit(session) for _ in range(clients)))
        return {"submissions_per_second": done / _SUBMIT_S}

    async def measure_jobs(self, count: int) -> dict[str, Any]:
        """Submit `count` jobs of one image at once; the seconds until each one's final state has come."""
        seconds: list[float] = []
        states: list[str] = []

        async def run(session: aiohttp.ClientSession, number: int) -> None:
            started = time.monotonic()
            follower = await self.follow(await self.submit_job(session, number), lambda stored, at: None)
            states.append(await asyncio.wait_for(follower.ended, _PATIENCE_S))
            seconds.append(time.monotonic() - started)
            follower.close()

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(run(session, number) for number in range(count)))
        quantiles = statistics.quantiles(seconds, n=100)
        return {"p50_s": quantiles[49], "p95_s": quantiles[94], "states": {s: states.count(s) for s in set(states)}}

    async def measure_followers(self, count: int, images: int) -> dict[str, Any]:
        """Have `count` sockets follow one running job; the time from each store's end to each client's message."""
        async with aiohttp.ClientSession() as session:
            job_id = await self.submit_job(session, int(time.time()), images)
            seen: list[list[tuple[int, float]]] = [[] for _ in range(count)]

            def note(number: int) -> OnStored:
                return lambda stored, at: seen[number].append((stored, at))

            followers = []
            for start in range(0, count, 100):
                batch = range(start, min(count, start + 100))
                followers += await asyncio.gather(*(self.follow(job_id, note(number)) for number in batch))
            opened = time.time()
            states = await asyncio.gather(*(asyncio.wait_for(follower.ended, _PATIENCE_S) for follower in followers))
            ended = await self._finished_times(session, job_id)
        for follower in followers:
            follower.close()
        delays = sorted(
            next(at for stored, at in told if stored >= rank) - finished
            for told in seen
            for rank, finished in enumerate(ended, start=1)
            if finished > opened
        )
        return {
            "clients": count,
            "states": {state: states.count(state) for state in set(states)},
            "went_back": sum(follower.went_back for follower in followers),
            "messages": sum(map(len, seen)),
            "images_after_opening": sum(finished > opened for finished in ended),
            "p50_ms": 1000 * delays[len(delays) // 2] if delays else None,
            "p99_ms": 1000 * delays[int(len(delays) * 0.99)] if delays else None,
        }

    async def measure_storm(self, count: int, cuts: int, images: int) -> dict[str, Any]:
        """Followers that come at random moments of a job, while Redis' Pub/Sub connections are cut again and again."""
        from redis.asyncio import Redis

        redis = Redis.from_url(os.environ["REDIS_URL"])
        async with aiohttp.ClientSession() as session:
            job_id = await self.submit_job(session, int(time.time()), images)

            async def come(after_s: float) -> Follower:
                await asyncio.sleep(after_s)
                return await self.follow(job_id, lambda stored, at: None)

            async def cut() -> None:
                for _ in range(cuts):
                    await asyncio.sleep(0.3)
                    await redis.client_kill_filter(_type="pubsub")

            async def watch() -> float:
                while True:
                    async with session.get(f"{self.base_url}/jobs/{job_id}", headers=self.headers) as answer:
                        if (await answer.json())["status"] == "completed":
                            return time.time()
                    await asyncio.sleep(0.05)

            comers = [asyncio.ensure_future(come(random.uniform(0, 8))) for _ in range(count)]
            cutting, watching = asyncio.ensure_future(cut()), asyncio.ensure_future(watch())
            followers = await asyncio.gather(*comers)
            final = await watching
            states = await asyncio.gather(*(asyncio.wait_for(follower.ended, _PATIENCE_S) for follower in followers))
            await cutting
        await redis.aclose()
        return {
            "states": {state: states.count(state) for state in set(states)},
            "went_back": sum(follower.went_back for follower in followers),
            "latest_s_after_the_end": max(follower.ended_at for follower in followers) - final,
        }

    async def follow(self, job_id: str, on_stored: OnStored) -> Follower:
        """Open a WebSocket that follows a job."""
        parts = urlsplit(self.base_url)
        request = (
            f"GET /ws?token={self.token} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        assert parts.hostname
        assert parts.port
        follower = Follower(request.encode(), job_id, on_stored, loop.create_future())
        await loop.create_connection(lambda: follower, parts.hostname, parts.port)
        return follower

    async def _finished_times(self, session: aiohttp.ClientSession, job_id: str) -> list[float]:
        """Return when each image was stored, as its worker's clock says, in order."""
        times: list[float] = []
        after = ""
        while True:
            query = {"limit": "1000", "status": "stored"} | ({"after": after} if after else {})
            async with session.get(
                f"{self.base_url}/jobs/{job_id}/items", params=query, headers=self.headers
            ) as answer:
                page = await answer.json()
            times += [item["finishedAt"] for item in page["items"]]
            if not page["next"]:
                return sorted(times)
            after = page["next"]


def main() -> None:
    """Measure what the command line names, and print it as JSON."""
    base_url, token, image_url, what, *rest = sys.argv[1:]
    count, images, side = (*map(int, rest), *(50, 300, 256)[len(rest) :])
    load = Load(base_url, token, image_url, side)
    measures = {
        "submit": lambda: load.measure_submissions(16),
        "jobs": lambda: load.measure_jobs(count),
        "follow": lambda: load.measure_followers(count, images),
        "storm": lambda: load.measure_storm(count, 20, images),
    }
    sys.stdout.write(json.dumps(asyncio.run(measures[what]())) + "\n")


if __name__ == "__main__":
    main()
