# Once per process.
from threading import main_thread

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.send as send
cimport gtcp._corelib.thread as thread
cimport gtcp._corelib.way as way

POLLIN = posix.POLLIN
POLLOUT = posix.POLLOUT

# What _core.pyi promises; the classes of the parts are visible too, but nobody's business.
__all__ = [
    "POLLIN", "POLLOUT", "REASON_NAMES", "Alarm", "AsyncConn", "AsyncPool", "AsyncUnitIterator", "BaseConn",
    "BasePool", "BlockingConn", "BlockingPool", "Claim", "Directory", "Fiber", "Hub", "Parser", "PkgHandler", "Signal",
    "Tls", "UnitIterator", "alarm", "current_hub", "directory", "greenlet_exit", "open_lease", "remaining",
    "set_wait_function", "sleep", "to_deadline", "wait_any",
]

thread.set_main(main_thread().native_id)
if posix.watch_forks() != 0 or thread.watch_forks() != 0 or way.watch_forks() != 0:
    raise MemoryError("no memory to watch for forks")

for awaitable in (
    Awaitable, Receive, Send, Exchange, SendBatch, ReceiveBatch, ExchangeBatch, Handshake, Farewell, Rest, EndOf,
):
    send.set_slot(awaitable, send_to)
