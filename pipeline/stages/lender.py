"""How often a host may be asked, and who counts: the slots that `gate` gives to requests are lent by a lender."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain import FetchPolicy


@dataclass(frozen=True, slots=True)
class HostLimit:
    """How often a host may be asked.

    Attributes
    ----------
    slots : int
        Requests at once, 1 or more.
    interval_s : float
        Seconds from the beginning of a request to that of the next with the same slot, at least.
    """

    slots: int
    interval_s: float = 0.0

    @classmethod
    def of(cls, policy: FetchPolicy) -> HostLimit:
        """Return the limit of a policy: with no more slots than requests a second, so that no burst is longer."""
        rate = policy.requests_per_second
        if rate is None:
            return cls(policy.connections_per_host)
        slots = min(policy.connections_per_host, max(1, math.floor(rate)))
        return cls(slots, slots / rate)


class Lender(Protocol):
    """Who has the slots; all methods are called on one event loop."""

    def take_own(self, host: str) -> bool:
        """Take a slot that this process need not ask for, if it has one left; it rests for no interval."""

    def put_back_own(self, host: str) -> None:
        """Put that back."""

    async def borrow(self, host: str) -> bool:
        """Wait a few seconds for a slot, and say whether there was one."""

    async def give_back(self, host: str) -> None:
        """Take a slot back."""

    async def retire(self, host: str) -> None:
        """Forget a host whose slots have all been given back; it may be asked for again later."""


class OwnSlots:
    """The lender of a process that shares its hosts with no other: `HostGate` counts what it borrows itself."""

    def take_own(self, host: str) -> bool:
        """Take none."""
        return False

    def put_back_own(self, host: str) -> None:
        """Do nothing."""

    async def borrow(self, host: str) -> bool:
        """Lend a slot."""
        return True

    async def give_back(self, host: str) -> None:
        """Do nothing."""

    async def retire(self, host: str) -> None:
        """Do nothing."""
