"""Ready-made handlers for servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gtcp import _core

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from gtcp._options import PkgOption


def pkg_handler(
    function: Callable[[bytes], Buffer | None], option: PkgOption | None = None
) -> Callable[[_core.BlockingConn], None]:
    """A handler that answers each package with what `function(package)` returns, or not at all for None.

    The loop around it runs in the core, until the peer closes. `option`: a PkgOption for both directions. TypeError
    when `function` is none. What `function` or the connection raises leaves the handler.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, not {type(function).__name__}")
    return _core.PkgHandler(function, option)
