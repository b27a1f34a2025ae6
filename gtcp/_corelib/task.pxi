# How a task of asyncio waits: what it awaits, and who wakes it.
cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit, PyContext_New
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread
cimport gtcp._corelib.send as send

# From asyncio, which is imported by the first connection that needs it.
cdef object get_running_loop = None
cdef object CancelledError = None
# A future that is done. A task that is woken with it goes on at once: of anything else than asyncio's own it would
# first look up and call the result.
cdef object the_done_future = None


cdef class NoLoop:
    """Whose that future is."""

    def get_debug(self):
        return False


cdef int import_asyncio() except -1:
    global get_running_loop, CancelledError, the_done_future
    import asyncio
    future = asyncio.Future(loop=NoLoop())
    future.set_result(None)
    the_done_future = future
    CancelledError = asyncio.CancelledError
    get_running_loop = asyncio.get_running_loop     # the last: others look whether it is there
    return 0


cdef object running_loop():
    """The loop that runs in this thread, or RuntimeError."""
    if get_running_loop is None:
        import_asyncio()
    return get_running_loop()


cdef bint runs_here(object loop) except -1:
    """Whether the loop runs in this thread."""
    try:
        return get_running_loop() is loop
    except RuntimeError:
        return False


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

    # A task asks for these two at each wait. From C, so the methods that suit Python code are slower.
    @cython.binding(False)
    def get_loop(self):
        return self.loop

    @cython.binding(False)
    def add_done_callback(self, callback, *, context=None):
        self.callback = callback
        self.context = context
        if self.rung:
            self.wake_soon()

    def result(self):
        """What a task asks first that is woken with this."""
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
            callback(the_done_future)
            return 0
        PyContext_Enter(context)
        try:
            callback(the_done_future)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int wake_soon(self) except -1:
        """Runs the task in the loop's next turn. From any thread, as finalizers run in any."""
        cdef object callback = self.callback
        cdef object context = self.context
        cdef object outcome = the_done_future if self.cancellation is None else self
        self.callback = self.context = None
        self.rung = callback is None
        if callback is None or self.loop.is_closed():
            return 0
        if pythread.PyThread_get_thread_ident() == self.thread:
            self.loop.call_soon(callback, outcome, context=context)
        else:
            self.loop.call_soon_threadsafe(callback, outcome, context=context)
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

    @cython.final
    cdef inline object outcome(self):
        """The result, which the caller alone has from now on."""
        cdef object value = self.value
        self.value = None
        return value

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.proceed():
            raise StopIteration(self.outcome())
        return self.awaited

    def send(self, _, /):
        """Goes on, as a coroutine does."""
        if self.proceed():
            raise StopIteration(self.outcome())
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
    value = awaitable.outcome() if over else awaitable.awaited
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

    cdef Waiter on_ready(self):
        """What wait.events asked for has come: who is to be woken, None while it waits on."""
        raise NotImplementedError

    cdef Waiter on_time(self):
        """The moment wait.until has passed: the same."""
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

    cdef Waiter on_time(self):
        return self.waiter

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
