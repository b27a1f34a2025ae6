# Waiting in an event loop of asyncio: the shape in which a task waits, and the loop's eye on a socket.
#
# The loop tells readiness to a call of ours in a callback. The call makes its step right there and wakes its
# task, in the same turn of the loop, only when it is done: no future is resolved and no callback is queued.
cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit, PyContext_New
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread
cimport gtcp._corelib.send as send

cdef enum:
    # System calls that a connection may make in a row before the loop serves others.
    CREDIT = 64

# From asyncio, which is imported by the first connection that needs it.
cdef object get_running_loop = None
cdef object CancelledError = None


cdef int import_asyncio() except -1:
    global get_running_loop, CancelledError
    import asyncio
    get_running_loop = asyncio.get_running_loop
    CancelledError = asyncio.CancelledError
    return 0


@cython.final
cdef class Waiter:
    """What a task waits for: the part of asyncio.Future's protocol that a Task uses.

    One waiter serves one wait after the other.
    """
    cdef object loop
    cdef size_t thread              # the loop's
    # Who is to be woken, in which context; None while nobody waits.
    cdef object callback
    cdef object context
    cdef bint rung                  # it was woken before the task had come to wait
    cdef object cancellation        # the CancelledError that the task is going to get
    cdef public bint _asyncio_future_blocking

    def get_loop(self):
        return self.loop

    def add_done_callback(self, callback, *, context=None):
        self.callback = callback
        self.context = context
        if self.rung:
            self.wake_soon()

    def result(self):
        """What the woken task asks first."""
        cdef object cancellation = self.cancellation
        if cancellation is not None:
            self.cancellation = None
            raise cancellation

    def cancel(self, msg=None):
        """The task is being cancelled; False when it is on its way already."""
        if self.callback is None:
            return False
        self.cancellation = CancelledError() if msg is None else CancelledError(msg)
        self.wake_soon()
        return True

    cdef inline bint waits(self) noexcept:
        return self.callback is not None

    cdef int wake(self) except -1:
        """Runs the task now. For callbacks of the loop only: a task cannot be entered from within another."""
        cdef object callback = self.callback
        cdef object context = self.context
        self.callback = self.context = None
        if context is None:
            callback(self)
            return 0
        PyContext_Enter(context)
        try:
            callback(self)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int wake_soon(self) except -1:
        """Runs the task in the loop's next turn. From any thread, as finalizers run in any."""
        cdef object callback = self.callback
        cdef object context = self.context
        self.callback = self.context = None
        self.rung = callback is None
        if callback is None or self.loop.is_closed():
            return 0
        if pythread.PyThread_get_thread_ident() == self.thread:
            self.loop.call_soon(callback, self, context=context)
        else:
            self.loop.call_soon_threadsafe(callback, self, context=context)
        return 0


cdef Waiter waiter_of(object loop, size_t thread):
    cdef Waiter waiter = Waiter()
    waiter.loop = loop
    waiter.thread = thread
    return waiter


cdef class Awaitable:
    """What can be awaited or made a task of, once."""
    cdef object awaited             # what the task waits for, None for the loop's next turn
    cdef object value

    cdef bint proceed(self) except -1:
        """Goes on: True when `value` is the result, False when the task has to wait for `awaited`."""
        return True

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.proceed():
            raise StopIteration(self.value)
        return self.awaited

    def send(self, _, /):
        """Goes on, as a coroutine does."""
        if self.proceed():
            raise StopIteration(self.value)
        return self.awaited

    def throw(self, kind, value=None, trace=None, /):
        """Ends it by an exception, as in a coroutine."""
        raise exception_of(kind, value, trace)

    def close(self):
        """Ends it by GeneratorExit, as a coroutine."""


cdef object exception_of(object kind, object value, object trace):
    """The exception of the arguments of `throw`, in the form of old as well as in that of today."""
    if value is None:
        value = kind() if isinstance(kind, type) else kind
    return value if trace is None else value.with_traceback(trace)


cdef int send_to(object self, object _, PyObject** result) except -1:
    """The same as `send`, without the price of an exception."""
    cdef Awaitable awaitable = <Awaitable>self
    cdef object value
    cdef bint over = awaitable.proceed()
    value = awaitable.value if over else awaitable.awaited
    Py_INCREF(value)
    result[0] = <PyObject*>value
    return send.PYGEN_RETURN if over else send.PYGEN_NEXT


cdef Awaitable done(object value):
    """What has its result already."""
    cdef Awaitable ready = Awaitable()
    ready.value = value
    return ready


cdef class Sleeper(Awaitable):
    """A call that waits in an event loop."""
    cdef Wait wait
    cdef Waiter waiter              # None while it does not wait
    cdef bint rung                  # it was woken before there was one

    cdef void wait_by(self, Waiter waiter) noexcept:
        self.waiter = waiter
        self.awaited = waiter
        waiter._asyncio_future_blocking = True
        waiter.rung = self.rung
        self.rung = False

    cdef int on_ready(self) except -1:
        """What wait.events asked for has come."""
        raise NotImplementedError

    cdef int on_time(self) except -1:
        """The moment wait.until has passed."""
        raise NotImplementedError


@cython.final
cdef class TaskParker(Parker):
    """A place in a queue for a call in an event loop."""
    cdef Sleeper sleeper

    cdef int unpark(self) except -1:
        self.woken = True
        if self.sleeper.waiter is None:
            self.sleeper.rung = True    # on its way to sleep: what it does until then can run others
        else:
            self.sleeper.waiter.wake_soon()
        return 0


@cython.final
cdef class Rest(Sleeper):
    """A task's sleep until its parker is woken; whoever made it looks after the moment `wait.until`."""
    cdef object loop
    cdef size_t thread

    cdef bint proceed(self) except -1:
        if self.waiter is None and self.wait.until > posix.now():
            self.wait_by(waiter_of(self.loop, self.thread))
            return False
        self.waiter = None
        return True

    cdef int on_time(self) except -1:
        return self.waiter.wake()

    def throw(self, kind, value=None, trace=None, /):
        self.waiter = None
        raise exception_of(kind, value, trace)


cdef TaskParker parker_in_loop(object loop, size_t thread):
    """A place in a queue for a task that rests there."""
    cdef TaskParker parker = TaskParker()
    cdef Rest rest = Rest()
    rest.loop = loop
    rest.thread = thread
    parker.sleeper = rest
    return parker


cdef object loop_call_at(object loop, int64_t moment, object function, object context):
    """A timer handle. In whole milliseconds, rounded up: more precise a loop is not, and less would spin."""
    cdef int64_t wait = (max(<int64_t>0, moment - posix.now()) + posix.MILLISECOND - 1) // posix.MILLISECOND
    return loop.call_later(wait / 1e3, function, context=context)


@cython.final
cdef class LoopWatch(Watch):
    """A loop's eye on one socket, and the calls that wait for it.

    A callback stays registered while it is useful, so an exchange costs no epoll_ctl: one that finds nobody waiting
    removes itself. One timer serves all calls: a later deadline leaves it alone, and when it fires early it is set
    again.
    """
    cdef object loop
    cdef size_t thread              # the loop's
    cdef unsigned long generation   # the process it runs in, as a count of forks
    # Who waits, and the queues of those who wait for them.
    cdef Sleeper receiver
    cdef Sleeper sender
    cdef Turn sending
    cdef Turn exchanging
    cdef Signal ending              # where those wait who pause, None until somebody does
    cdef bint reading               # registered with the loop
    cdef bint writing
    cdef object timer
    cdef int64_t timer_moment
    cdef Waiter spare               # for the next wait
    cdef int credit                 # see CREDIT

    cdef int check_loop(self) except -1:
        """RuntimeError in a thread where another loop runs, or none."""
        # The thread first: to ask which loop runs costs as much as a buffered receive.
        if pythread.PyThread_get_thread_ident() != self.thread and get_running_loop() is not self.loop:
            raise RuntimeError("this connection belongs to another event loop: only the one that opened it may use it")
        return 0

    cdef int place(self, Sleeper sleeper, bint sends) except -1:
        """Serves the call when what it waits for comes, until `remove`."""
        if sends:
            self.sender = sleeper
        else:
            self.receiver = sleeper
        if sleeper.wait.events & posix.POLLIN and not self.reading:
            self.register(self.loop.add_reader, self._on_readable)
            self.reading = True
        if sleeper.wait.events & posix.POLLOUT and not self.writing:
            self.register(self.loop.add_writer, self._on_writable)
            self.writing = True
        return self.set_timer(sleeper.wait.until)

    cdef int register(self, object add, object callback) except -1:
        """In a context of its own: the caller's would live as long as the connection."""
        cdef object context = PyContext_New()
        PyContext_Enter(context)
        try:
            add(self.fd, callback)
        finally:
            PyContext_Exit(context)
        return 0

    cdef void remove(self, Sleeper sleeper) noexcept:
        if self.receiver is sleeper:
            self.receiver = None
        if self.sender is sleeper:
            self.sender = None

    cdef Waiter new_waiter(self):
        cdef Waiter waiter = self.spare
        if waiter is not None:
            self.spare = None
            return waiter
        return waiter_of(self.loop, self.thread)

    cdef void keep(self, Waiter waiter) noexcept:
        """Takes a waiter back after its wait."""
        if not waiter.waits() and waiter.cancellation is None:
            self.spare = waiter

    def _on_readable(self):
        self.credit = CREDIT
        self.drained = False
        if not self.serve(posix.POLLIN):
            self.reading = False
            self.loop.remove_reader(self.fd)

    def _on_writable(self):
        self.credit = CREDIT
        if not self.serve(posix.POLLOUT):
            self.writing = False
            self.loop.remove_writer(self.fd)

    cdef bint serve(self, int events) except -1:
        """Serves those who wait for one of the events; False when nobody does."""
        cdef Sleeper receiver = self.receiver
        cdef Sleeper sender = self.sender
        cdef bint served = False
        if receiver is not None and receiver.wait.events & events:
            served = True
            receiver.on_ready()
        # The receiver's task has run: the sender may have been served or cancelled by it.
        if sender is not None and sender is self.sender and sender.wait.events & events:
            served = True
            sender.on_ready()
        return served

    # -- time

    cdef int set_timer(self, int64_t moment) except -1:
        """Somebody wants to be told when the moment has come."""
        if moment == NEVER or (self.timer is not None and self.timer_moment <= moment):
            return 0
        if self.timer is not None:
            self.timer.cancel()
        self.timer_moment = moment
        self.timer = loop_call_at(self.loop, moment, self._on_time, PyContext_New())
        return 0

    def _on_time(self):
        cdef list late = []
        cdef Sleeper sleeper
        cdef int64_t next_ = NEVER
        cdef int64_t now = posix.now()
        self.timer = None
        for sleeper in self.sleepers():
            if sleeper.wait.until <= now:
                late.append(sleeper)
            else:
                next_ = min(next_, sleeper.wait.until)
        self.set_timer(next_)
        self.credit = CREDIT
        for sleeper in late:
            if sleeper.waiter is not None and sleeper.waiter.waits() and sleeper.wait.until <= now:
                sleeper.on_time()

    cdef list sleepers(self):
        """Everybody who waits: for the socket, for a turn, for the next attempt."""
        cdef list found = []
        cdef ParkerQueue queue
        cdef Parker parker
        for sleeper in (self.receiver, self.sender):
            if sleeper is not None:
                found.append(sleeper)
        for queue in (self.sending.queue, self.exchanging.queue, None if self.ending is None else self.ending.waiting):
            parker = None if queue is None else queue.first
            while parker is not None:
                found.append((<TaskParker>parker).sleeper)
                parker = parker.behind
        return found

    # -- the end

    cdef int end(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.reading:
            self.reading = False
            self.loop.remove_reader(self.fd)
        if self.writing:
            self.writing = False
            self.loop.remove_writer(self.fd)
        return 0

    def _end_and_close(self):
        """The connection was closed in another thread: the loop's own does it."""
        self.end()
        posix.close(self.fd)


@cython.final
cdef class LoopWay(Way):
    """Event loops as a way to wait. A call that runs in one names this way; it is never a thread's current one."""

    cdef bint unwatch(self, Watch watch_) except -1:
        cdef LoopWatch watch = <LoopWatch>watch_
        if not (watch.reading or watch.writing or watch.timer is not None) or watch.loop.is_closed() \
                or watch.generation != posix.generation:
            return False                # nothing to end, or a parent's loop, whose epoll this process must not touch
        if pythread.PyThread_get_thread_ident() == watch.thread:
            watch.end()
            return False
        watch.loop.call_soon_threadsafe(watch._end_and_close)
        return True


cdef LoopWay the_loop_way = LoopWay()


cdef int watch_in_loop(Stream stream) except -1:
    """The running loop keeps an eye on the stream's socket from now on."""
    cdef LoopWatch watch = LoopWatch()
    if get_running_loop is None:
        import_asyncio()
    watch.loop = get_running_loop()
    watch.thread = <size_t>pythread.PyThread_get_thread_ident()
    watch.generation = posix.generation
    watch.fd = stream.fd
    watch.sending = stream.sending
    watch.exchanging = stream.exchanging
    watch.credit = CREDIT
    stream.watch = watch
    stream.watcher = the_loop_way
    return 0
