"""The tree of exceptions is as its docstring draws it."""

import copy
import errno
import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from gtcp import _errors

LINE = re.compile(r"^ {4}((?:[| ] {3})*)(?:\+-- )?(\w+)(?: +([A-Z][\w.]*(?:, \w+)*|socket\.gaierror))?(?:  .*)?$")


def drawn() -> dict[str, tuple[str | None, set[str]]]:
    """name -> (parent, builtin bases) from the picture in the docstring."""
    assert _errors.__doc__
    picture = _errors.__doc__.split("::\n\n")[1].split("\n\n")[0]
    tree: dict[str, tuple[str | None, set[str]]] = {}
    path: list[str] = []
    for line in picture.splitlines():
        match = LINE.match(line)
        assert match, line
        stem, name, builtins = match.groups()
        depth = 0 if "+--" not in line else len(stem) // 4 + 1
        path[depth:] = [name]
        bases = {base.strip() for base in (builtins or "").split(",")} - {""}
        tree[name] = (path[depth - 1] if depth else None, bases)
    return tree


def real() -> dict[str, tuple[str | None, set[str]]]:
    classes = [c for c in vars(_errors).values() if isinstance(c, type) and issubclass(c, gtcp.Error)]
    tree = {}
    for each in classes:
        ours = [base.__name__ for base in each.__bases__ if issubclass(base, gtcp.Error)]
        others = {base for base in each.__bases__ if not issubclass(base, gtcp.Error)}
        named = {f"{b.__module__}.{b.__name__}".removeprefix("builtins.") for b in others if b is not Exception}
        tree[each.__name__] = (ours[0] if ours else None, named)
    return tree


def test_the_picture_shows_the_classes() -> None:
    assert len(drawn()) > 10
    assert drawn() == real()


def test_all_of_them_are_public() -> None:
    for name in real():
        assert name in gtcp.__all__
        assert getattr(gtcp, name).__module__ == "gtcp"


@pytest.mark.parametrize("name", sorted(real()))
def test_every_one_is_a_gtcp_error_with_a_docstring(name: str) -> None:
    cls = getattr(gtcp, name)
    assert issubclass(cls, gtcp.Error)
    assert cls.__doc__


@pytest.mark.parametrize(
    ("number", "builtin"),
    [
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.ECONNRESET, ConnectionResetError),
        (errno.ECONNABORTED, ConnectionAbortedError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ESHUTDOWN, BrokenPipeError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EACCES, PermissionError),
        (errno.EPERM, PermissionError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_errors_of_the_kernel_have_the_builtin_s_class(number: int, builtin: type[OSError]) -> None:
    error = _errors.BY_ERRNO[number](number, os.strerror(number))
    assert isinstance(error, builtin)
    assert isinstance(error, gtcp.SocketError)
    assert error.errno == number
    assert str(error) == f"[Errno {number}] {os.strerror(number)}"
    assert type(OSError(number, "")) is builtin  # Python's own map says the same


def test_B4_the_end_prints_as_the_document_shows() -> None:
    end = gtcp.EOF()
    assert str(end) == "EOF"
    assert (end.partial, end.expected) == (b"", None)


def pickled(error: Exception) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("duplicate", [copy.copy, pickled])
def test_errors_survive_a_process_boundary(duplicate: Callable[[Exception], Any]) -> None:
    end = duplicate(gtcp.EOF("EOF after 2 of 5 bytes", b"ab", 5))
    assert (str(end), end.partial, end.expected) == ("EOF after 2 of 5 bytes", b"ab", 5)
    reset = duplicate(gtcp.ResetError(errno.ECONNRESET, "reset"))
    assert (type(reset), reset.errno) == (gtcp.ResetError, errno.ECONNRESET)


def test_what_was_sent_is_unknown_by_default() -> None:
    assert gtcp.Timeout("").sent is None
    assert gtcp.Timeout("").replies is None
