# An event loop's eye on a socket.
#
# The loop tells readiness to a call of ours in a callback. The call makes its step right there and wakes its
# task, in the same turn of the loop, only when it is done: no future is resolved and no callback is queued.
cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit, PyContext_New
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread

cdef enum:
    # What a connection may spend in a row before the loop serves others.
    CREDIT = 64 * CALL

# The loop whose callback of ours runs, and the tasks that it wakes. Whose thread that is, has to be asked too.
cdef PyObject* the_loop_inside = NULL


cdef object loop_call_at(object loop, int64_t moment, object function, object context):
    """A timer handle. In whole milliseconds, rounded up: more precise a loop is not, and less would spin."""
    cdef int64_t wait = (max(<int64_t>0, moment - posix.now()) + posix.MILLISECOND - 1) // posix.MILLISECOND
    return loop.call_later(wait / 1e3, function, context=context)


@cython.final
cdef class Ear:
    """What a loop calls when a socket is ready in one direction.

    A loop may let go of it unasked: uvloop does so with a socket that has failed, after one last call.
    """
    cdef LoopWatch watch
    cdef int event                  # POLLIN or POLLOUT

    def __call__(self):
        self.watch.on_event(self.event)

    def __del__(self):
        self.watch.deafened(self)


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
    # What is registered with the loop, which holds it. NULL: nothing.
    cdef PyObject* reading
    cdef PyObject* writing
    cdef bint deaf                  # the loop has let go of one unasked, and still knows the descriptor
    cdef object timer
    cdef int64_t timer_moment
    cdef Waiter spare               # for the next wait
    cdef int credit                 # see CREDIT
    cdef bint orphaned              # nobody else closes the descriptor

    cdef int check_loop(self) except -1:
        """RuntimeError where another loop runs, or none."""
        cdef size_t here = <size_t>pythread.PyThread_get_thread_ident()
        # To ask which loop runs costs as much as a buffered receive.
        if the_loop_inside == <PyObject*>self.loop and here == self.thread:
            return 0
        if get_running_loop() is not self.loop:
            raise RuntimeError("this connection belongs to another event loop: only the one that opened it may use it")
        if here != self.thread:
            self.thread = here          # the loop has moved
            self.spare = None
        return 0

    cdef bint is_here(self) except -1:
        """This thread runs the loop, or nobody does and this thread did before: what it watches may be changed."""
        if pythread.PyThread_get_thread_ident() != self.thread:
            return False
        return the_loop_inside == <PyObject*>self.loop or not self.loop.is_running() or runs_here(self.loop)

    cdef int place(self, Sleeper sleeper, bint sends) except -1:
        """Serves the call when what it waits for comes, until `remove`. A failure places nobody."""
        if self.deaf:
            self.forget()
        if sleeper.wait.events & posix.POLLIN and self.reading == NULL:
            self.register(posix.POLLIN, self.loop.add_reader, &self.reading)
        if sleeper.wait.events & posix.POLLOUT and self.writing == NULL:
            self.register(posix.POLLOUT, self.loop.add_writer, &self.writing)
        self.set_timer(sleeper.wait.until)
        if sends:
            self.sender = sleeper
        else:
            self.receiver = sleeper
        return 0

    cdef int register(self, int event, object add, PyObject** registered) except -1:
        """In a context of its own: the caller's would live as long as the connection."""
        cdef object context = PyContext_New()
        cdef Ear ear = Ear.__new__(Ear)
        ear.watch = self
        ear.event = event
        PyContext_Enter(context)
        try:
            add(self.fd, ear)
        finally:
            PyContext_Exit(context)
        registered[0] = <PyObject*>ear
        return 0

    cdef int forget(self) except -1:
        """The loop shall not know the descriptor any more."""
        cdef bint reading = self.reading != NULL or self.deaf
        cdef bint writing = self.writing != NULL or self.deaf
        self.reading = self.writing = NULL
        self.deaf = False
        if reading:
            self.loop.remove_reader(self.fd)
        if writing:
            self.loop.remove_writer(self.fd)
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

    cdef int on_event(self, int event) except -1:
        if event & posix.POLLIN:
            self.drained = False
        if self.serve(event):
            return 0
        # Another thread that closes the connection meanwhile leaves the descriptor to the loop.
        if event == posix.POLLIN:
            self.reading = NULL
            self.loop.remove_reader(self.fd)
        else:
            self.writing = NULL
            self.loop.remove_writer(self.fd)
        return 0

    cdef int deafened(self, Ear ear) except -1:
        """The loop has let go of what was registered: who waits looks at the socket and has himself placed again."""
        if <PyObject*>ear == self.reading:
            self.reading = NULL
        elif <PyObject*>ear == self.writing:
            self.writing = NULL
        else:
            return 0                    # as it was told to
        self.drained = False
        self.deaf = True
        if (self.receiver is not None or self.sender is not None) and self.generation == posix.generation \
                and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._look, context=PyContext_New())
        return 0

    def _look(self):
        self.serve(posix.POLLIN | posix.POLLOUT)

    cdef bint serve(self, int events) except -1:
        """Serves those who wait for one of the events; False when nobody does."""
        global the_loop_inside
        cdef Sleeper receiver = self.receiver
        cdef Sleeper sender = self.sender
        cdef Waiter waiter
        cdef bint served = False
        self.credit = CREDIT
        the_loop_inside = <PyObject*>self.loop
        try:
            if receiver is not None and receiver.wait.events & events:
                served = True
                waiter = receiver.on_ready()
                receiver = None         # then its task is the last to let go of it, and it can serve again
                if waiter is not None:
                    waiter.wake()
            # The receiver's task has run: the sender may have been served or cancelled by it.
            if sender is not None and sender is self.sender and sender.wait.events & events:
                served = True
                waiter = sender.on_ready()
                sender = None
                if waiter is not None:
                    waiter.wake()
        finally:
            the_loop_inside = NULL
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
        cdef Waiter waiter
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
                waiter = sleeper.on_time()
                if waiter is not None:
                    waiter.wake()

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
        return self.forget()

    cdef inline bint is_known(self) noexcept:
        """The loop knows the descriptor."""
        return self.reading != NULL or self.writing != NULL or self.deaf

    cdef int end_later(self) except -1:
        """The connection was closed in another thread: the loop's own lets go of the descriptor, then it is closed."""
        self.orphaned = True
        try:
            self.loop.call_soon_threadsafe(self._end_and_close)
        except:
            self.orphaned = False       # the loop has been closed meanwhile
            raise
        return 0

    def _end_and_close(self):
        try:
            self.end()
        finally:
            self.close()

    cdef void close(self) noexcept:
        if self.orphaned:
            self.orphaned = False
            posix.close(self.fd)

    def __dealloc__(self):
        self.close()                    # the loop did not run again


@cython.final
cdef class LoopWay(Way):
    """Event loops as a way to wait. A call that runs in one names this way; it is never a thread's current one."""

    cdef bint unwatch(self, Watch watch_) except -1:
        cdef LoopWatch watch = <LoopWatch>watch_
        if not (watch.is_known() or watch.timer is not None) or watch.loop.is_closed() \
                or watch.generation != posix.generation:
            return False                # nothing to end, or a parent's loop, whose epoll this process must not touch
        if watch.is_here():
            watch.end()
            return False
        watch.end_later()
        return True


cdef LoopWay the_loop_way = LoopWay()


cdef int watch_in_loop(Stream stream) except -1:
    """The running loop keeps an eye on the stream's socket from now on."""
    cdef LoopWatch watch = LoopWatch()
    watch.loop = running_loop()
    watch.thread = <size_t>pythread.PyThread_get_thread_ident()
    watch.generation = posix.generation
    watch.fd = stream.fd
    watch.sending = stream.sending
    watch.exchanging = stream.exchanging
    watch.credit = CREDIT
    stream.watch = watch
    stream.watcher = the_loop_way
    return 0
