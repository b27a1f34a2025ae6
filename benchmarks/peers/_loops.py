"""Which event loop runs an asyncio peer: the standard one or uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


def run_on(loop: str, main: Coroutine[object, object, None]) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)
