# A call of a connection as an awaitable of asyncio. It drives the same steps as the blocking call, and between
# them its task waits; it is its own coroutine, so awaiting it makes no frame.
from cpython.object cimport PyObject
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport int64_t
from libc.string cimport memset

cimport gtcp._corelib.posix as posix

cdef enum Role:
    # What a call needs to itself, in the order in which everybody takes it.
    EXCHANGING = 1
    RECEIVING = 2
    SENDING = 4

cdef enum Stage:
    OVER                        # or never begun
    NEW                         # nobody has awaited it
    UNDER_WAY
    FINISHED                    # in a callback of the loop: the task has yet to fetch what came out


cdef class Operation(Sleeper):
    """One call on a connection. Subclasses say what a step is, and what a failure leaves behind."""
    cdef BaseConn conn
    cdef Stream stream              # from the beginning to the end of the call
    cdef LoopWatch watch
    cdef Stage stage
    cdef int wanted                 # roles to be taken
    cdef int held                   # and taken
    cdef TaskParker parker          # in the queue for a role
    # Nanoseconds from the first step on, and the moments that come of it.
    cdef int64_t timeout
    cdef int64_t deadline
    cdef int64_t recv_deadline
    cdef int64_t send_deadline
    cdef object error               # what came out of a step in a callback
    # What is awaited between two attempts, and the place where that is told of the end; how many there were.
    cdef object pause
    cdef TaskParker pausing
    cdef object retry
    cdef int attempt

    # -- what subclasses add

    cdef bint step(self) except -1:
        """Goes on without waiting: True when the call is done, False with wait.events and wait.until set."""
        raise NotImplementedError

    cdef int after_failure(self, object error) except -1:
        """Leaves the stream as a failed call must; the roles are still held."""
        return 0

    cdef int after_success(self) except -1:
        """Notes on the handle what the call did."""
        return 0

    cdef int take_back(self) except -1:
        """The value will never reach the caller."""
        return 0

    cdef str lateness(self):
        """The text of the Timeout."""
        raise NotImplementedError

    cdef Out* outgoing(self) except? NULL:
        """What is sent; NULL where nothing is."""
        return NULL

    # -- driven by a task

    cdef bint proceed(self) except -1:
        cdef bint over
        if self.stage == OVER or self.is_waited_for():
            raise RuntimeError("this call has been awaited already")
        while True:
            try:
                if self.pause is not None and not self.paused():
                    return False
                if self.stage == NEW:
                    self.begin()
                elif self.waiter is not None:
                    self.stop_waiting()
                if self.error is not None:
                    error, self.error = self.error, None
                    raise error
                over = self.stage == FINISHED or (self.take_roles() and self.spend_on_step())
                while not over and self.wait.until != NEVER and self.wait.until <= posix.now():
                    over = self.last_step()
                if over:
                    self.succeed()
                    return True
                self.start_waiting()
                return False
            except BaseException as error:
                if not self.recovers(error):
                    raise

    cdef inline bint is_waited_for(self) noexcept:
        """A task sleeps in the call, and has not been woken; not even by its cancellation."""
        return self.waiter is not None and self.waiter.waits()

    cdef int begin(self) except -1:
        """The deadlines count from the first attempt."""
        if self.attempt == 0:
            self.deadline = NEVER if self.timeout == NEVER else posix.now() + self.timeout
            self.recv_deadline = min(self.deadline, self.conn.recv_deadline)
            self.send_deadline = min(self.deadline, self.conn.send_deadline)
        self.stage = UNDER_WAY
        self.enter()
        self.watch = <LoopWatch>self.stream.watch
        memset(&self.wait, 0, sizeof(Wait))
        self.wait.way = <PyObject*>the_loop_way
        self.wait.caller = self.ident()
        self.wait.generation = posix.generation
        self.wait.deadline = self.deadline
        if self.wanted & RECEIVING:
            self.wait.deadline = self.recv_deadline
        if self.wanted & SENDING:
            self.wait.deadline = min(self.wait.deadline, self.send_deadline)
        self.wait.until = self.wait.deadline
        return 0

    cdef int enter(self) except -1:
        cdef Stream stream = self.conn.open_stream()
        if stream.generation != posix.generation:
            raise ClosedError("the connection belongs to the loop of the process that forked this one")
        if stream.watch is not None:    # else it is closed
            (<LoopWatch>stream.watch).check_loop()
        stream.enter()
        self.stream = stream
        return 0

    cdef bint take_roles(self) except -1:
        """True when the call has the roles it wants, False while it queues up for one."""
        cdef Stream stream = self.stream
        if not self.wanted:
            return True
        if self.wanted & EXCHANGING:
            if not self.take(stream.exchanging):
                return False
            self.wanted &= ~EXCHANGING
            self.held |= EXCHANGING
        if self.wanted & RECEIVING:
            stream.claim_receiver_for(self.ident())
            self.wanted &= ~RECEIVING
            self.held |= RECEIVING
        if self.wanted & SENDING:
            if not self.take(stream.sending):
                return False
            self.wanted &= ~SENDING
            self.held |= SENDING
        return True

    cdef bint take(self, Turn turn) except -1:
        cdef TaskParker parker
        if self.parker is not None:
            if self.parker.queued:
                return False
            self.parker = None
        elif turn.try_take_for(self.ident()):
            return True
        else:
            parker = TaskParker()
            parker.sleeper = self
            parker.ident = self.ident()
            self.rung = False
            if turn.enqueue(parker):
                self.parker = parker
                return False
        if self.stream.closed or self.stream.broken is not None:    # since the call began
            turn.give()
            self.stream.raise_unusable()
        return True

    cdef inline size_t ident(self) noexcept:
        """Two calls of one thread can wait for each other, so each is somebody."""
        return <size_t><void*>self

    cdef bint spend_on_step(self) except -1:
        """A step at the expense of the connection's credit."""
        cdef bint over
        self.wait.credit = self.watch.credit
        over = self.step()
        self.watch.credit = <int>self.wait.credit
        return over

    cdef bint last_step(self) except -1:
        """The time is over. What arrived at the last moment counts; the end of a silence is a result."""
        if self.parker is not None:
            raise Timeout("timed out waiting for another call on this connection")
        self.watch.drained = False
        self.watch.credit = CREDIT
        self.unit_is_final()
        if self.spend_on_step():
            return True
        if left(self.wait.until) == 0:
            raise Timeout(self.lateness())
        return False

    cdef void unit_is_final(self) noexcept:
        """Whatever has come is all that comes."""

    cdef int release(self) except -1:
        """Gives the roles back and leaves the stream."""
        cdef Stream stream = self.stream
        cdef int held = self.held
        cdef Turn turn
        if stream is None:
            return 0
        self.stream = None
        self.held = 0
        if self.parker is not None:
            turn = stream.exchanging if self.wanted & EXCHANGING else stream.sending
            if not turn.leave(self.parker):
                turn.give()
            self.parker = None
        if held & SENDING:
            stream.sending.give()
        if held & RECEIVING:
            stream.receiver = 0
        if held & EXCHANGING:
            stream.exchanging.give()
        stream.leave()
        return 0

    cdef int succeed(self) except -1:
        """The call is over, its value is known."""
        self.stage = OVER
        self.release()
        self.after_success()
        return self.let_go()

    cdef int let_go(self) except -1:
        """Who still holds the call keeps neither the handle nor the loop nor what was handed in by it."""
        self.conn = self.watch = None
        return 0

    cdef int fail(self, object error) except -1:
        """The call is over, the error will tell."""
        if self.stream is not None:
            if self.waiter is not None:
                self.stop_waiting()
            try:
                self.after_failure(error)
            finally:
                self.release()
        self.stage = OVER
        return 0

    # -- attempts

    cdef bint recovers(self, object error) except -1:
        """After a failed attempt: True when another one begins, after a pause; else all is cleaned up.

        A lease whose connection went stale gets another one. What passes by itself is tried again as the retry policy
        says; a send keeps its turn meanwhile, so that nobody sends into its message.
        """
        cdef int64_t deadline = min(self.recv_deadline, self.send_deadline)
        cdef int wanted = self.wanted | self.held
        cdef bint began = self.stream is not None or self.attempt   # else nothing has happened to the connection
        cdef Stream stream = self.stream
        if self.pause is None and self.retry is not None and stream is not None and not stream.closed:
            delay = self.retry.delay(self.attempt, error)
            if delay is not None and nanoseconds(delay, "delay") < deadline - posix.now():
                if not self.held & SENDING:
                    self.fail(error)
                    self.stage = NEW
                    self.wanted = wanted
                self.attempt += 1
                self.begin_pause(stream, posix.now() + nanoseconds(delay, "delay"))
                return True
        self.fail(error)
        if self.pause is None and self.conn.is_stale(self.outgoing(), error):
            self.pause = self.conn.home._renew(self.conn, None if deadline == NEVER else deadline / 1e9)
            self.stage = NEW
            self.wanted = wanted
            self.attempt += 1
            return True
        self.end_pause()                # if there was one, it was the pause that failed
        self.conn.failed = self.conn.failed or began
        self.let_go()
        return False

    cdef int begin_pause(self, Stream stream, int64_t until) except -1:
        """The end of the connection cuts it short."""
        cdef TaskParker parker = parker_in_loop(self.watch.loop, self.watch.thread)
        self.watch.ending = stream.until_closed()
        self.watch.ending.queue().push(parker)
        self.pausing = parker
        self.pause = parker.sleeper
        parker.sleeper.wait.until = until
        return self.watch.set_timer(until)

    cdef int end_pause(self) except -1:
        self.pause = None
        if self.pausing is not None:
            (<ParkerQueue>self.pausing.queue).remove(self.pausing)
            self.pausing = None
        return 0

    cdef bint paused(self) except -1:
        """Drives what is awaited between two attempts: True when that has ended."""
        try:
            self.awaited = self.pause.send(None)
        except StopIteration:
            self.end_pause()
            return True
        return False

    # -- waiting

    cdef int start_waiting(self) except -1:
        cdef Waiter waiter
        if self.parker is None and self.wait.credit <= 0:
            self.watch.credit = CREDIT
            self.awaited = None         # others first: the loop's next turn will do
            return 0
        waiter = self.watch.new_waiter()
        if self.parker is None:
            self.watch.place(self, self.held & SENDING)
        else:
            self.watch.set_timer(self.wait.until)
        self.wait_by(waiter)
        return 0

    cdef void stop_waiting(self) noexcept:
        self.watch.remove(self)
        self.watch.keep(self.waiter)
        self.waiter = None
        self.awaited = None

    cdef Waiter on_ready(self):
        return self.go_on(False) if self.waiter.waits() else None

    cdef Waiter on_time(self):
        return self.go_on(True)

    cdef Waiter go_on(self, bint late):
        """A step in a callback: the task is woken when it has something to do, else it sleeps on."""
        try:
            if self.last_step() if late else self.spend_on_step():
                self.stage = FINISHED
            elif self.wait.credit > 0:
                self.watch.place(self, self.held & SENDING)
                return None
        except BaseException as error:
            self.error = error
        return self.waiter if self.waiter.waits() else None

    # -- ended from outside

    def throw(self, kind, value=None, trace=None, /):
        """Ends the call by an exception, as cancelling its task does."""
        cdef object error = exception_of(kind, value, trace)
        if self.stage == OVER or (
                self.is_waited_for() and not isinstance(error, GeneratorExit) and not self.watch.loop.is_closed()):
            raise RuntimeError("this call has been awaited already")
        if self.pause is not None:
            try:
                self.awaited = self.pause.throw(error)
                return self.awaited
            except StopIteration:
                self.end_pause()
                return self.__next__()
            except BaseException as thrown:
                self.end_pause()
                error = thrown
        if self.stage == FINISHED:
            self.take_back()
        self.error = None
        if self.stage != NEW or self.attempt:
            self.conn.failed = True
        self.fail(error)
        self.let_go()
        raise error

    def close(self):
        """Ends the call, as a coroutine's close does."""
        if self.stage == NEW:
            self.stage = OVER
            self.let_go()
        elif self.stage != OVER:
            try:
                self.throw(GeneratorExit())
            except GeneratorExit:
                pass

    def __del__(self):
        if self.stage == NEW:
            warn_never_awaited(self)
        elif self.stage != OVER:
            self.close()


cdef inline bint is_free(Operation call) noexcept:
    """A call that is over serves again when nobody holds it but the place where it was set aside, and who asks."""
    return call is not None and Py_REFCNT(call) == 2


cdef int warn_never_awaited(Operation call) except -1:
    import warnings
    warnings.warn(f"{type(call).__name__} on {call.conn!r} was never awaited", RuntimeWarning, source=call)
    return 0


cdef object sleep_in_loop(object delay):
    import asyncio
    return asyncio.sleep(delay)
