"""A random life of a connection, used by two threads, against the model in plain Python."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import gtcp
from support.crew import Worker
from support.model import Model, TooLong
from support.peers import frame, read, socket_pair
from support.timing import LONG

TAKES = st.sampled_from(["exact", "package", "line", "till"])
DATA = st.binary(max_size=40) | st.sampled_from(
    [b"a\n", b"x--", frame(b"hello"), frame(b""), b"\xff\xff", bytes(20_000)]
)
MOMENT = 0.002


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        ours, self.far = self._stack.enter_context(socket_pair())
        self.conn = self._stack.enter_context(gtcp.Conn.from_socket(ours))
        self.model = Model()
        self.ended = self.broken = self.closed = False

    def receive(self, kind: str, size: int, timeout: float) -> object:
        match kind:
            case "exact":
                return self.conn.recv(size, timeout=timeout)
            case "package":
                return self.conn.recv_pkg(gtcp.PkgOption(2, 1000), timeout=timeout)
            case "line":
                return self.conn.recv_line(timeout=timeout, max_size=1000)
        return self.conn.recv_till(b"--", timeout=timeout, max_size=1000)

    def expect(self, kind: str, size: int) -> object:
        match kind:
            case "exact":
                return self.model.take_exact(size)
            case "package":
                return self.model.take_pkg(2, 1000)
            case "line":
                return self.model.take_till(b"\n", 1000, line=True)
        return self.model.take_till(b"--", 1000)

    # -- what the peer does

    @precondition(lambda self: not self.ended and not self.closed)
    @rule(data=DATA)
    def peer_sends(self, data: bytes) -> None:
        self.far.sendall(data)
        self.model.feed(data)

    @precondition(lambda self: not self.ended and not self.closed)
    @rule()
    def peer_ends(self) -> None:
        self.far.shutdown(socket.SHUT_WR)
        self.ended = True

    # -- what this side does

    @precondition(lambda self: not self.closed)
    @rule(kind=TAKES, size=st.integers(1, 60), elsewhere=st.booleans())
    def take(self, kind: str, size: int, elsewhere: bool) -> None:
        """In this thread or another one: the unit, or the reason why there is none."""
        expected: object
        error: type[BaseException] | None = None
        try:
            expected = None if self.broken else self.expect(kind, size)
        except TooLong:
            expected, error = None, gtcp.LimitError
            self.broken = kind == "package"
        else:
            if self.broken:
                error = gtcp.BrokenError
            elif expected is None:
                error = gtcp.EOF if self.ended else gtcp.Timeout
        timeout = MOMENT if error is gtcp.Timeout else LONG
        call = lambda: self.receive(kind, size, timeout)  # noqa: E731
        if error is not None:
            with pytest.raises(error):
                (Worker(call).result if elsewhere else call)()
        else:
            assert (Worker(call).result() if elsewhere else call()) == expected

    @precondition(lambda self: not self.closed and not self.broken)
    @rule(data=st.binary(min_size=1, max_size=3000))
    def send_from_both_threads(self, data: bytes) -> None:
        other = Worker(lambda: self.conn.send_pkg(data, timeout=LONG))
        self.conn.send_pkg(data, timeout=LONG)
        other.result()
        assert read(self.far, 2 * len(frame(data))) == 2 * frame(data)

    @precondition(lambda self: not self.closed and not self.broken and not self.ended and not self.model.buffered)
    @rule(data=st.binary(min_size=1, max_size=50))
    def send_beside_a_receiver(self, data: bytes) -> None:
        receiver = Worker(lambda: self.conn.recv(len(data), timeout=LONG))
        receiver.asleep()
        self.conn.send(data, timeout=LONG)
        self.far.sendall(read(self.far, len(data)))
        assert receiver.result() == data

    @precondition(lambda self: not self.closed and not self.ended and not self.broken and not self.model.buffered)
    @rule()
    def close_beside_a_receiver(self) -> None:
        receiver = Worker(lambda: self.conn.recv(1, timeout=LONG))
        receiver.asleep()
        self.conn.close()
        assert isinstance(receiver.error(), gtcp.ClosedError)
        self.closed = True

    @precondition(lambda self: self.closed)
    @rule(kind=TAKES)
    def use_after_close(self, kind: str) -> None:
        for call in (lambda: self.receive(kind, 1, LONG), lambda: self.conn.send(b"x")):
            with pytest.raises(gtcp.ClosedError):
                call()

    @invariant()
    def it_knows_whether_it_is_closed(self) -> None:
        assert self.conn.closed == self.closed

    def teardown(self) -> None:
        self._stack.close()


Test_B22_B17_H1_life = Life.TestCase
Test_B22_B17_H1_life.settings = settings(
    max_examples=int(os.environ.get("GTCP_TEST_LIVES", "30")), stateful_step_count=30, deadline=None
)
