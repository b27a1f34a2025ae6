"""The core of gtcp: sockets, buffers, framing, waiting and the pool's free list.

A table of contents: each part uses only the parts above it.
"""

include "_corelib/errors.pxi"       # errno -> exception, in one place
include "_corelib/buffer.pxi"       # bytes on their way in or out
include "_corelib/unit.pxi"         # what a receive can ask for
include "_corelib/framing.pxi"      # bytes in, units out; knows no socket and no clock
include "_corelib/parser.pxi"       # the same for tests and fuzzers
include "_corelib/deadline.pxi"     # seconds -> an absolute moment
include "_corelib/wait.pxi"         # the one place that waits
include "_corelib/turn.pxi"         # turns for those who queue, and signals
include "_corelib/timers.pxi"       # deadlines of many sleepers
include "_corelib/poller.pxi"       # many sockets watched by one thread
include "_corelib/scheduler.pxi"    # who can go on
include "_corelib/hub.pxi"          # waiting as a greenlet
include "_corelib/function.pxi"     # waiting by a function of the user's
include "_corelib/operation.pxi"    # what one call wants
include "_corelib/socket.pxi"       # the socket: one read, one send, waiting
include "_corelib/tls.pxi"          # records on one side, plaintext on the other; knows no socket
include "_corelib/transport.pxi"    # the socket, plain or through TLS
include "_corelib/sender.pxi"       # sends, at once or gathered
include "_corelib/stream.pxi"       # every operation as a step, and the calls that block
include "_corelib/claims.pxi"       # who wants a connection of a pool, and when an address may be dialled
include "_corelib/freelist.pxi"     # the pool's accounting
include "_corelib/alarm.pxi"        # when somebody has to look after idle connections
include "_corelib/arguments.pxi"    # what callers hand in, checked before a byte moves
include "_corelib/batch.pxi"        # many packages in few system calls
include "_corelib/conn.pxi"         # the handle a user holds
include "_corelib/blocking.pxi"     # its calls that block
include "_corelib/handler.pxi"      # a server's loop around a function, as a greenlet or without
include "_corelib/task.pxi"         # how a task of asyncio waits
include "_corelib/loop.pxi"         # an event loop's eye on a socket
include "_corelib/aio.pxi"          # a call as an awaitable
include "_corelib/aiocalls.pxi"     # the different calls
include "_corelib/aioconn.pxi"      # the handle that has them
include "_corelib/seeker.pxi"       # how a caller waits for a connection of a pool
include "_corelib/lease.pxi"        # a handle on loan from a pool
include "_corelib/pool.pxi"         # what the Python layer builds its pool on
include "_corelib/aiopool.pxi"      # one whose callers are tasks
include "_corelib/directory.pxi"    # the shared pools, by address
include "_corelib/start.pxi"        # once per process
