"""Seconds to moments and back (D4)."""

import math
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtcp import _core


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9, 0.0004, 1, 2.5, 2**31 / 1000 + 1, Decimal("0.25"), Fraction(1, 3)])
def test_D4_a_deadline_is_never_early_and_hardly_late(timeout: Any) -> None:
    before = time.monotonic()
    deadline = _core.to_deadline(timeout)
    after = time.monotonic()
    assert deadline is not None
    assert before + float(timeout) <= deadline <= after + float(timeout) + 1e-6


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 2.0**40, 10**400])
def test_D4_longer_than_anyone_waits_is_no_limit(timeout: Any) -> None:
    assert _core.to_deadline(timeout) is None


@pytest.mark.parametrize("timeout", [-1, -1e-9, -math.inf, -(10**400), Decimal(-1)])
def test_D4_negative_timeouts(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must not be negative"):
        _core.to_deadline(timeout)


@pytest.mark.parametrize("timeout", [math.nan, Decimal("nan")])
def test_D4_nan(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be a number of seconds, not nan"):
        _core.to_deadline(timeout)


@pytest.mark.parametrize("timeout", [True, False, "1", b"1", [], 1j, object()])
def test_D4_not_a_number(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None"):
        _core.to_deadline(timeout)


@given(st.floats(0, 1e6))
def test_D4_what_remains_is_what_was_given(timeout: float) -> None:
    remaining = _core.remaining(_core.to_deadline(timeout))
    assert remaining is not None
    assert 0 <= remaining <= timeout + 1e-6


def test_D4_nothing_remains_after_the_deadline() -> None:
    assert _core.remaining(time.monotonic() - 1) == 0.0
    assert _core.remaining(0) == 0.0
    assert _core.remaining(-5) == 0.0
    assert _core.remaining(None) is None


@given(st.floats(allow_nan=True) | st.integers() | st.booleans() | st.text(max_size=3))
def test_D4_every_value_gives_a_deadline_or_a_clear_error(timeout: Any) -> None:
    if isinstance(timeout, (bool, str)) or not timeout >= 0:  # nan, too
        with pytest.raises((TypeError, ValueError), match="timeout"):
            _core.to_deadline(timeout)
    else:
        deadline = _core.to_deadline(timeout)
        assert deadline is None or deadline >= time.monotonic() - 60


@pytest.mark.parametrize("seconds", [0, 1e-9, 0.001, 0.02])
def test_D2_sleeping_is_never_short(seconds: float) -> None:
    start = time.monotonic()
    _core.sleep(seconds)
    assert time.monotonic() - start >= seconds
