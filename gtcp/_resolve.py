"""Names to addresses, without holding up a deadline and without more threads than a few."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable

from gtcp import _core
from gtcp._address import Address, unix_name
from gtcp._errors import ResolveError, Timeout

# What an address without a host means to those who dial.
LOCALHOST = "127.0.0.1"
# Names that are looked up at a time; more wait for their turn.
AT_ONCE = 32

Target = tuple[int, int, int, tuple[object, ...] | str]
"""What one attempt needs: family, type, protocol, address."""


def resolve(address: Address, deadline: float | None) -> list[Target]:
    """The targets of an address, IPv6 and IPv4 taking turns. A name is looked up without holding up the deadline."""
    targets = numeric(address)
    if targets is not None:
        return targets
    lookup = lookups.join(address.host, address.port)
    try:
        if not lookup.done.wait(deadline):
            raise Timeout(f"timed out while resolving {address.host!r}")
    finally:
        lookups.leave(lookup)
    return lookup.result()


def numeric(address: Address) -> list[Target] | None:
    """The targets of an address that is written in numbers, or a path; None for a name."""
    if address.path is not None:
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, unix_name(address.path))]
    try:
        return look_up(address.host or LOCALHOST, address.port, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    except socket.gaierror:
        return None


class Lookup:
    """A name that is or will be looked up, and what came of it."""

    def __init__(self, host: str, port: int) -> None:
        self.key = host, port
        self.callers = 0
        self.tell: list[Callable[[], object]] = []
        self.done = _core.Signal()
        self.targets: list[Target] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Asks the system."""
        try:
            self.targets = interleave(look_up(*self.key, 0))
        except Exception as error:  # noqa: BLE001 (`result` raises it)
            self.error = error

    def result(self) -> list[Target]:
        """Once it is done; ResolveError when the name has no address."""
        if isinstance(self.error, socket.gaierror):
            raise ResolveError(self.error.errno, f"{self.error.strerror}: {self.key[0]!r}") from None
        if self.error is not None:
            raise self.error
        return list(self.targets)


class Lookups:
    """Each getaddrinfo in a thread: the C library cannot end it early. Who asks for the same name shares the answer."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Also in a child: the threads are the parent's."""
        # A signal handler may dial in the middle of a dial.
        self._lock = threading.RLock()
        self._threads = 0
        self._waiting: deque[Lookup] = deque()
        self._known: dict[tuple[str, int], Lookup] = {}

    def join(self, host: str, port: int, tell: Callable[[], object] | None = None) -> Lookup:
        """The lookup of this name that is under way, or a new one. RuntimeError when there can be no thread.

        `tell` is called when it is done, in another thread.
        """
        with self._lock:
            lookup = self._known.get((host, port))
            if lookup is None:
                lookup = self._begin(host, port)
            lookup.callers += 1
            if tell is not None:
                lookup.tell.append(tell)
            return lookup

    def leave(self, lookup: Lookup, tell: Callable[[], object] | None = None) -> None:
        """One who joined does not wait any more; a lookup whose turn has not come when all have left never begins."""
        with self._lock:
            lookup.callers -= 1
            if tell is not None:
                lookup.tell.remove(tell)

    def _begin(self, host: str, port: int) -> Lookup:
        lookup = Lookup(host, port)
        self._waiting.append(lookup)
        try:
            if self._threads < AT_ONCE:
                threading.Thread(target=self._work, name="gtcp-resolver", daemon=True).start()
                self._threads += 1
        except BaseException:
            if not self._threads and lookup in self._waiting:
                self._waiting.remove(lookup)
            raise
        self._known[lookup.key] = lookup
        return lookup

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                lookup = self._waiting.popleft()
                wanted = lookup.callers > 0
                if not wanted:
                    self._known.pop(lookup.key, None)
            if wanted:
                lookup.run()
                with self._lock:
                    self._known.pop(lookup.key, None)
                    tell = list(lookup.tell)
                lookup.done.set()
                for each in tell:
                    each()


lookups = Lookups()
os.register_at_fork(after_in_child=lookups.forget)


def look_up(host: str, port: int, flags: int) -> list[Target]:
    # As bytes: a str would go through the idna codec, whose first use imports, and a fork meanwhile would leave
    # the child with an import lock that nobody gives back.
    found = socket.getaddrinfo(host.encode("ascii"), port, 0, socket.SOCK_STREAM, 0, flags)
    return [(family, kind, protocol, name) for family, kind, protocol, _, name in found]


def interleave(targets: list[Target]) -> list[Target]:
    """The families take turns, beginning with the one the system prefers (RFC 8305, section 4)."""
    if not targets:
        return []
    first = [t for t in targets if t[0] == targets[0][0]]
    others = [t for t in targets if t[0] != targets[0][0]]
    mixed: list[Target] = []
    for i in range(max(len(first), len(others))):
        mixed += first[i : i + 1] + others[i : i + 1]
    return mixed
