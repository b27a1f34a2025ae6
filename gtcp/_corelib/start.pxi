# Once per process.
cimport gtcp._corelib.posix as posix

POLLIN = posix.POLLIN
POLLOUT = posix.POLLOUT

# What _core.pyi promises; the classes of the parts are visible too, but nobody's business.
__all__ = [
    "POLLIN", "POLLOUT", "REASON_NAMES", "Alarm", "BaseConn", "BasePool", "Fiber", "Hub", "Parser", "Signal", "Tls",
    "UnitIterator", "alarm", "current_hub", "remaining", "sleep", "to_deadline", "wait_any",
]

if posix.watch_forks() != 0:
    raise MemoryError("no memory to watch for forks")
