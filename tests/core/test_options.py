"""Retry and PkgOption: what they accept, and how long a retry waits (C8)."""

import dataclasses
import errno
import math
import pickle
from typing import Any

import pytest

import gtcp
from gtcp import PkgOption, Retry

NUMBERS = ["interval", "backoff", "max_interval", "jitter"]


def test_the_defaults_are_those_of_the_original() -> None:
    assert dataclasses.astuple(Retry()) == (0, 0.1, 1.0, 10.0, 0.0)
    assert dataclasses.astuple(PkgOption()) == (2, None, None)


@pytest.mark.parametrize("option", [Retry(3), PkgOption(4, 100, Retry(1))], ids=["Retry", "PkgOption"])
def test_options_are_immutable_values(option: Retry | PkgOption) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(option, dataclasses.fields(option)[0].name, 1)
    assert pickle.loads(pickle.dumps(option)) == option == dataclasses.replace(option)
    assert hash(option) == hash(dataclasses.replace(option))


@pytest.mark.parametrize("count", [0, 1, 10**9])
def test_a_count_of_attempts(count: int) -> None:
    assert Retry(count).count == count


@pytest.mark.parametrize(
    ("count", "error"), [(-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError), (None, TypeError)]
)
def test_a_bad_count_of_attempts(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="count"):
        Retry(count)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.001, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        (10**400, ValueError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_bad_times_of_a_retry(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        Retry(**{name: value})


@pytest.mark.parametrize("value", [{"backoff": 0.99}, {"jitter": 1.01}])
def test_times_of_a_retry_out_of_range(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(value))):
        Retry(**value)


def test_each_wait_is_longer_by_the_backoff_up_to_the_limit() -> None:
    retry = Retry(9, interval=0.1, backoff=2.0, max_interval=0.5)
    assert [retry.wait(attempt) for attempt in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_a_wait_never_overflows() -> None:
    assert Retry(10**6, interval=1.0, backoff=10.0, max_interval=7.0).wait(10**5) == 7.0
    assert Retry(10**6, interval=0.0, backoff=10**300, max_interval=7.0).wait(10**5) == 0.0


@pytest.mark.parametrize("interval", [1e16, 10**300])
def test_rounding_takes_no_wait_above_its_limit(interval: float) -> None:
    limit = 9_999_999_999_999_999  # which no float is
    assert 0 <= Retry(1, interval=interval, max_interval=limit).wait(0) <= limit


def test_jitter_only_shortens_a_wait() -> None:
    waits = [Retry(1, interval=1.0, jitter=0.25).wait(0) for _ in range(200)]
    assert all(0.75 <= wait <= 1.0 for wait in waits)
    assert len(set(waits)) > 1


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (gtcp.SocketError(errno.ENOBUFS, ""), 0.1),
        (gtcp.SocketError(errno.ENOMEM, ""), 0.1),
        (gtcp.SocketError(errno.ENETUNREACH, ""), 0.1),
        (gtcp.ResetError(errno.ECONNRESET, ""), None),
        (gtcp.PipeError(errno.EPIPE, ""), None),
        (gtcp.Timeout(""), None),
        (gtcp.EOF(), None),
        (gtcp.ClosedError(""), None),
        (OSError(errno.ENOBUFS, "somebody else's"), None),
        (KeyboardInterrupt(), None),
    ],
    ids=repr,
)
def test_only_what_passes_by_itself_is_tried_again(error: BaseException, delay: float | None) -> None:
    assert Retry(1).delay(0, error) == delay
    assert Retry(1).delay(1, error) is None
    assert Retry().delay(0, error) is None


@pytest.mark.parametrize(("header", "most"), [(1, 0xFF), (2, 0xFFFF), (3, 0xFFFFFF), (4, 0x7FFFFFFF)])
def test_C8_max_data_size_is_what_the_header_can_say(header: int, most: int) -> None:
    for size in (0, 1, most - 1, most):
        assert PkgOption(header, size).max_data_size == size
    with pytest.raises(ValueError, match=f"max_data_size must be from 0 to {most}, got {most + 1}"):
        PkgOption(header, most + 1)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (0, ValueError),
        (5, ValueError),
        (-1, ValueError),
        (2**64, ValueError),
        (True, TypeError),
        (2.0, TypeError),
        ("2", TypeError),
        (None, TypeError),
    ],
)
def test_bad_header_sizes(header: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="header_size"):
        PkgOption(header)


@pytest.mark.parametrize(
    ("size", "error"), [(-1, ValueError), (2**64, ValueError), (True, TypeError), (1.5, TypeError), ("1", TypeError)]
)
def test_bad_data_sizes(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_data_size"):
        PkgOption(2, size)


@pytest.mark.parametrize("retry", [3, True, "1", (1, 0.1)])
def test_a_retry_that_is_none(retry: Any) -> None:
    with pytest.raises(TypeError, match="retry must be a Retry"):
        PkgOption(retry=retry)
