"""Names are looked up in a bounded number of threads, each name once at a time, and nobody waits beyond a deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import gtcp
from gtcp import _resolve
from support.calls import Call
from support.timing import LONG, SHORT, eventually, takes

UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class SlowResolver:
    """Knows no name, and says so when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, *rest: Any) -> Any:
        if rest[-1] & socket.AI_NUMERICHOST:
            return self._real(host, *rest)
        self.asked.append(host.decode())
        assert self.answer.wait(LONG)
        raise UNKNOWN


def threads() -> int:
    return sum(thread.name == "gtcp-resolver" for thread in threading.enumerate())


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowResolver]:
    resolver = SlowResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answer.set()
    eventually(lambda: threads() == 0)


def failure(call: Call) -> BaseException:
    with pytest.raises(gtcp.ResolveError) as caught:
        call.result()
    return caught.value


def test_many_names_need_few_threads(resolver: SlowResolver) -> None:
    names = [f"name{i}.test" for i in range(_resolve.AT_ONCE + 10)]
    calls = [Call(gtcp.dial, f"{name}:1", LONG) for name in names]
    eventually(lambda: len(resolver.asked) == _resolve.AT_ONCE)
    for call in calls:
        call.sleeping()
    assert threads() == _resolve.AT_ONCE
    resolver.answer.set()
    for name, call in zip(names, calls, strict=True):
        assert name in str(failure(call))
    assert sorted(resolver.asked) == sorted(names)


def test_who_asks_for_the_same_name_shares_the_answer(resolver: SlowResolver) -> None:
    calls = [Call(gtcp.dial, "same.test:1", LONG).sleeping() for _ in range(20)]
    assert resolver.asked == ["same.test"]
    resolver.answer.set()
    assert len({id(failure(call)) for call in calls}) == 20
    with pytest.raises(gtcp.ResolveError):
        gtcp.dial("same.test:1", LONG)
    assert resolver.asked == ["same.test"] * 2


def test_a_name_whose_callers_have_given_up_is_not_asked_for(resolver: SlowResolver) -> None:
    calls = [Call(gtcp.dial, f"name{i}.test:1", LONG) for i in range(_resolve.AT_ONCE)]
    eventually(lambda: len(resolver.asked) == _resolve.AT_ONCE)
    with takes(SHORT), pytest.raises(gtcp.Timeout, match=r"late\.test"):
        gtcp.dial("late.test:1", SHORT)
    resolver.answer.set()
    for call in calls:
        failure(call)
    eventually(lambda: threads() == 0)
    assert "late.test" not in resolver.asked
    with pytest.raises(gtcp.ResolveError):
        gtcp.dial("late.test:1", LONG)


def test_without_a_thread_nothing_waits_for_ever(resolver: SlowResolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            gtcp.dial("name.test:1", LONG)
    resolver.answer.set()
    with pytest.raises(gtcp.ResolveError):
        gtcp.dial("name.test:1", LONG)
