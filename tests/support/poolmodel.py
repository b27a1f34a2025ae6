"""The pool's accounting in plain Python: which connection who gets, which is closed and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(eq=False)
class Link:
    """A connection, as far as the pool can know it."""

    said: str = "nothing"
    """What the peer has done since the last receive: "nothing", "a byte", or its "end"."""
    uses: int = 0
    rested: bool = False
    expired: bool = False
    mortal: bool = False
    """Its whole life is over as soon as it has served the one it was made for."""


@dataclass(eq=False)
class Loan:
    """A lease, and what its borrower has done with it: "nothing" that matters, or what keeps it from going back."""

    link: Link
    state: str = "nothing"


@dataclass
class PoolModel:
    """The books of a pool. What it closes is in `closed` by reason; `closing` collects which these were."""

    max_size: int
    max_idle: int | None
    max_uses: int | None
    min_idle: int
    fifo: bool
    look: bool
    mortal: bool = False
    """So are the next connections."""
    open: bool = True
    idle: list[Link] = field(default_factory=list)
    lent: list[Loan] = field(default_factory=list)
    waiting: int = 0
    acquired: int = 0
    reused: int = 0
    created: int = 0
    failed: int = 0
    timeouts: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    closing: list[Link] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.idle) + len(self.lent)

    def has_room(self) -> bool:
        return self.total < self.max_size

    def retire(self, link: Link, reason: str) -> None:
        self.closed[reason] += 1
        self.closing.append(link)

    def unfit(self, link: Link) -> str | None:
        """Why a connection that was kept is not lent."""
        if link.expired:
            return "cleared"
        if not self.look or link.said == "nothing":
            return None
        if link.said == "end":
            return "peer_closed"
        return "dirty" if link.uses else None

    def take(self) -> Link | None:
        """The idle connection that the next borrower gets; unfit ones on the way are closed."""
        while self.idle:
            link = self.idle.pop(0 if self.fifo else -1)
            if (reason := self.unfit(link)) is None:
                return link
            self.retire(link, reason)
        return None

    def make(self) -> Link:
        """A dial has succeeded."""
        self.created += 1
        return Link(mortal=self.mortal)

    def rest(self, link: Link) -> None:
        """A connection that nobody waits for, and that was dialled ahead of need."""
        if link.mortal:
            self.retire(link, "lifetime")
            return
        link.rested = True
        self.idle.append(link)

    def missing(self) -> int:
        """How many idle ones the pool dials by itself."""
        return max(0, min(self.min_idle - len(self.idle), self.max_size - self.total)) if self.open else 0

    def reject(self, link: Link, reason: str) -> None:
        """A lease ends before it has begun."""
        link.uses += 1
        self.retire(link, reason)

    def lend(self, link: Link) -> Loan:
        self.acquired += 1
        self.reused += link.rested or link.uses > 0
        link.uses += 1
        loan = Loan(link)
        self.lent.append(loan)
        return loan

    def end(self, loan: Loan, reason: str | None) -> Link | None:
        """A lease ends, for this reason or with a close: its connection if somebody who waits is to get it."""
        self.lent.remove(loan)
        link = loan.link
        if reason is None and loan.state != "nothing":
            reason = loan.state
        if reason is None:
            reason = self.unkept(link)
        if reason is not None:
            self.retire(link, reason)
            return None
        if self.waiting:
            return link
        link.rested = True
        self.idle.append(link)
        return None

    def unkept(self, link: Link) -> str | None:
        """Why a healthy connection that comes back is not kept."""
        if link.expired:
            return "cleared"
        if link.mortal:
            return "lifetime"
        if self.max_uses is not None and link.uses >= self.max_uses:
            return "uses"
        if self.total + 1 > self.max_size:
            return "full"
        if not self.waiting and self.max_idle is not None and len(self.idle) >= self.max_idle:
            return "full"
        return None

    def expire(self) -> None:
        for link in self.idle:
            self.retire(link, "cleared")
        self.idle.clear()
        for loan in self.lent:
            loan.link.expired = True

    def resize(self, max_size: int) -> None:
        self.max_size = max_size
        while self.idle and self.total > max_size:
            self.retire(self.idle.pop(0), "full")
