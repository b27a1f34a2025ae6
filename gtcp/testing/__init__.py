"""For the tests of programs that talk TCP: peers that follow a script, and a proxy that does what networks do.

Made of the standard library alone: nothing in here shares code with the connections it is used to test.
"""

from gtcp.testing._faults import (
    Bandwidth,
    Blackhole,
    Fault,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
)
from gtcp.testing._peers import Peer, Script, deaf_address, echo, echo_lines, echo_packages, refusing_address, reset
from gtcp.testing._proxy import FaultProxy

__all__ = [
    "Bandwidth",
    "Blackhole",
    "Fault",
    "FaultProxy",
    "Latency",
    "LimitData",
    "Peer",
    "ResetPeer",
    "Script",
    "Slicer",
    "SlowClose",
    "deaf_address",
    "echo",
    "echo_lines",
    "echo_packages",
    "refusing_address",
    "reset",
]
