"""What the process has from malloc: what is resident depends on what malloc gives back to the system, too."""

import ctypes

import pytest

malloc_tells = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc tells")

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class Mallinfo(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]


def allocated() -> int:
    """Bytes in use."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo
    now = mallinfo2()
    return int(now.uordblks + now.hblkhd)
