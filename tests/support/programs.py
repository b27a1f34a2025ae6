"""Programs that some tests talk to: skipped for a user who lacks them, a failure where they belong."""

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("GTCP_REQUIRE_PEERS", str(int(os.environ.get("CI") == "true"))) == "1"


def require(program: str) -> str:
    """The path of `program`; without it the test is skipped, or fails where peers are required."""
    path = shutil.which(program)
    if path is None:
        absent(f"{program} is not installed")
    return path


def absent(reason: str) -> NoReturn:
    """Skip the test for want of a peer, or fail it where peers are required."""
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
