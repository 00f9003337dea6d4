"""The relay by itself; what it carries is tested over WebSockets."""

from __future__ import annotations

import asyncio

from pipeline.interfaces.server.relay import Relay
from pipeline.state import Shown, open_async_redis


async def read_nothing(job_id: str) -> Shown:
    raise AssertionError(job_id)


def test_a_relay_ends_at_whatever_moment_of_its_start_it_is_asked_to(valkey_url: str) -> None:
    """redis-py swallows some cancellations while it connects: a server that is stopped just then would never end."""

    async def end_after(turns: int) -> bool:
        relay = Relay(open_async_redis(valkey_url), read_nothing, None)
        relaying = asyncio.create_task(relay.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        relaying.cancel()
        ended, _ = await asyncio.wait([relaying], timeout=60)
        await relay.aclose()
        return bool(ended)

    async def end_all() -> list[bool]:
        return await asyncio.gather(*map(end_after, range(60)))

    assert all(asyncio.run(end_all()))
