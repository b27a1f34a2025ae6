# A pool whose callers are tasks of one event loop. The books and what goes into them are those of every pool;
# here is how a task waits for its turn in them, and the one timer of the pool.
from functools import partial
from _weakref import ref

from cpython.contextvars cimport PyContext_New
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread


cdef enum:
    # Turns of the loop in which a dial that need not wait comes to its end: who has no time gets its connection.
    DIAL_TURNS = 4


cdef int check_unopened(AsyncConn lease) except -1:
    if lease._opening:
        raise ConcurrencyError("another task is opening this connection")
    lease._check_new()
    return 0


cdef class Tick:
    """The pool's timer, as the loop knows it: it does not keep the pool alive."""
    cdef object pool

    def __call__(self):
        cdef AsyncPool pool = self.pool()
        if pool is not None:
            pool.on_time()


cdef class AsyncPool(BasePool):
    """A pool whose callers await. It belongs to the loop of its first lease, and to that loop's thread.

    Leases may be dropped, and the pool be closed, in any thread.
    """
    cdef object loop                # None before the first lease
    cdef size_t thread
    # One timer for all: for callers whose time is over, and for what the pool wants to be looked after.
    cdef object timer
    cdef int64_t timer_moment
    cdef int64_t due                # NEVER when there is nothing to look after
    cdef Tick tick
    cdef object context             # the timer's own: a caller's would live as long as the timer

    def __cinit__(self, *args, **kwargs):
        self.due = NEVER

    # -- the loop

    cdef int enter_loop(self) except -1:
        """The caller runs in the pool's loop, or RuntimeError; the first caller decides which loop that is."""
        cdef object loop
        # To ask which loop runs costs a good part of an acquire.
        if the_loop_inside == <PyObject*>self.loop and self.generation == posix.generation \
                and pythread.PyThread_get_thread_ident() == self.thread:
            return 0
        if get_running_loop is None:
            import_asyncio()
        loop = get_running_loop()
        if self.generation != posix.generation:
            self.after_fork()
        if loop is self.loop:
            self.thread = <size_t>pythread.PyThread_get_thread_ident()
            return 0
        if self.loop is not None:
            raise RuntimeError(
                f"{self!r} belongs to {'a closed' if self.loop.is_closed() else 'another'} event loop: "
                "a pool serves the loop of its first lease, each loop needs one of its own")
        self._bound(loop)               # first: a pool whose loop does not know of it would not end with it
        self.loop = loop
        self.thread = <size_t>pythread.PyThread_get_thread_ident()
        self.tick = Tick()
        self.tick.pool = ref(self)
        self.context = PyContext_New()
        if self.due != NEVER:
            self.set_timer(self.due)
        return 0

    def _enter_loop(self):
        """The pool serves the running loop, or RuntimeError."""
        self.enter_loop()

    def _check_loop(self):
        """The pool's loop runs here, or RuntimeError. Before it has one and after the end of that, no error."""
        if self.generation != posix.generation:
            self.after_fork()
        if self.loop is not None and not self.loop.is_closed():
            self.enter_loop()

    def _loop_for_tasks(self):
        """The pool's own, running or not; after the end of that, and before it has one, the running one."""
        return running_loop() if self.loop is None or self.loop.is_closed() else self.loop

    cdef int set_timer(self, int64_t moment) except -1:
        """Somebody wants to be told when the moment has come. A later one than the timer's is set when that fires."""
        if moment == NEVER or (self.timer is not None and self.timer_moment <= moment) or self.loop is None \
                or self.loop.is_closed():
            return 0
        if pythread.PyThread_get_thread_ident() != self.thread:
            self.loop.call_soon_threadsafe(self.tick)
            return 0
        if self.timer is not None:
            self.timer.cancel()
        self.timer_moment = moment
        self.timer = loop_call_at(self.loop, moment, self.tick, self.context)
        return 0

    cdef int on_time(self) except -1:
        """Wakes the callers whose time is over, and has the pool looked after when that is due."""
        cdef int64_t now = posix.now()
        cdef int64_t moment = NEVER
        cdef list late = []
        cdef Claim claim
        cdef Parker parker
        cdef Rest rest
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        parker = self.drained.queue().first
        claim = self.waiting.first
        try:
            # First who, then the waking: that runs Python code, and finalizers in it change the queues.
            while claim is not None:
                moment = min(moment, self.find_late(claim.parker, now, late))
                claim = claim.behind
            while parker is not None:
                moment = min(moment, self.find_late(parker, now, late))
                parker = parker.behind
            for rest in late:
                if rest.waiter is not None:
                    rest.waiter.wake_soon()
            if self.due <= now:
                self.due = NEVER
                self._tend()
        finally:
            self.set_timer(min(moment, self.due))
        return 0

    cdef int64_t find_late(self, Parker parker, int64_t now, list late) except -1:
        """Notes one whose moment has come; else answers the moment."""
        cdef Rest rest = <Rest>(<TaskParker>parker).sleeper
        if rest.waiter is None:
            return NEVER                # it has been woken already, and sets the timer when it rests again
        if rest.wait.until > now:
            return rest.wait.until
        late.append(rest)
        return NEVER

    cdef int call_at(self, int64_t moment) except -1:
        if moment < self.due:
            self.due = moment
            self.set_timer(moment)
        return 0

    cdef int call_soon(self) except -1:
        self.due = 0
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.tick)
        return 0

    cdef int after_fork(self) except -1:
        self.loop = self.timer = None   # the parent's
        return BasePool.after_fork(self)

    # -- waiting

    cdef Rest rest(self, Parker parker, int64_t until):
        """To be awaited: ends when the parker is woken or the moment has come."""
        cdef Rest rest = <Rest>(<TaskParker>parker).sleeper
        rest.wait.until = until
        self.set_timer(until)
        return rest

    async def _obtain(self, int64_t since, int64_t deadline):
        """A connection that comes back or a new one, whichever is there first."""
        cdef Claim claim = Claim()
        cdef Stream stream
        cdef int turns = 0
        claim.parker = parker_in_loop(self.loop, self.thread)
        stream = self.borrow(posix.now())   # making these can run finalizers, and they can end leases
        if stream is not None:
            return stream
        self.queue_up(claim, deadline)
        try:
            while True:
                while claim.queue is self.waiting:
                    if claim.dial == DIAL_ALLOWED:
                        self.begin(claim, deadline)
                        turns = DIAL_TURNS
                    elif claim.parker.woken:
                        claim.parker = parker_in_loop(self.loop, self.thread)
                    elif turns and deadline <= posix.now():
                        turns -= 1
                        await sleep_in_loop(0)
                    else:
                        await self.rest(claim.parker, self.patience(claim, deadline))
                        if not claim.parker.woken and claim.queue is self.waiting:
                            self.after_rest(claim, deadline)
                stream = self.take_gift(claim)
                if stream is not None:
                    return stream
        except BaseException as error:
            self.give_up(claim)
            self.blame_deadline(error, deadline, claim.doing)
            raise
        finally:
            self.note_wait(since)

    async def _drain(self, deadline):
        """Waits until all leases of the closed pool have come back; at the deadline closes the others' connections."""
        cdef int64_t until = moment_of(deadline)
        cdef Parker parker
        while not self.drained.is_set and until > posix.now() and not self.loop.is_closed():
            self.enter_loop()
            parker = parker_in_loop(self.loop, self.thread)
            if self.drained.is_set:     # by a finalizer
                break
            self.drained.queue().push(parker)
            try:
                await self.rest(parker, until)
            finally:
                self.drained.queue().remove(parker)
        return 0 if self.drained.is_set else self.close_lent()

    # -- lending

    def _lend(self, AsyncConn lease not None, timeout=NOT_GIVEN):
        """Fills the handle with a connection on loan: awaits it, and answers the handle."""
        cdef int64_t wait = self.timeout if timeout is NOT_GIVEN else nanoseconds(timeout, "timeout")
        cdef int64_t now = posix.now()
        cdef int64_t deadline = after(now, wait)
        cdef Stream stream
        check_unopened(lease)
        if self.lease_type is None:
            raise PoolClosed("the pool was never opened")
        self.enter_loop()
        if self.closed:
            raise_pool_closed()
        if self.greets:
            return self._lend_later(lease, now, deadline)
        stream = self.borrow(now)
        if stream is None:
            return self._lend_later(lease, now, deadline)
        self.fill(lease, stream, now)
        self.note_lease(lease, now)
        return done(lease)

    async def _lend_later(self, AsyncConn lease, int64_t since, int64_t deadline):
        """The same when somebody has to be waited for."""
        cdef Stream stream
        cdef int64_t pause
        cdef int attempt = 0, spoilt = 0
        check_unopened(lease)
        lease._opening = True
        try:
            while True:
                stream = self.borrow(posix.now())
                if stream is None:
                    stream = await self._obtain(since, deadline)
                self.fill(lease, stream, posix.now())
                if not self.greets or await self._welcome(lease, stream, deadline):
                    self.note_lease(lease, posix.now())
                    return lease
                attempt += 1
                pause = 0
                if not lease.reused or not stream.closed:
                    spoilt += 1
                    pause = self.pause_after(spoilt)
                since = posix.now()
                if pause >= deadline - since:
                    self.timeouts += 1
                    raise self.timed_out(f"no connection passed the check in time, {attempt} did not")
                await sleep_in_loop(pause / 1e9)
        finally:
            lease._opening = False

    async def _welcome(self, BaseConn lease, Stream stream, int64_t deadline):
        """`greet` for a check and a hook that may be awaited."""
        lease.answered = True
        try:
            welcome = await self._greet(lease, lease.reused, seconds_of(deadline))
            if welcome and self.is_in_step(lease, stream):
                return True
        except BaseException as error:
            self.reject(lease, stream, ERROR)
            self.blame_deadline(error, deadline, "waiting for on_acquire")
            raise
        self.reject(lease, stream, CHECK)
        return False

    async def _renew(self, BaseConn lease, deadline):
        """`renew` for a dial that is awaited."""
        cdef Stream stale = lease.open_stream()
        cdef Stream stream
        lease.failed = True
        stale.close()
        try:
            conn = await self._redial(deadline)
        except:
            self.failed += 1
            raise
        stream = self.take_over(conn)
        self.replace(lease, stale, stream)
        lease.failed = lease.reused = False

    # -- the end of a lease

    cdef int take_back(self, object lease, bint discard) except -1:
        if self.loop is None or self.loop.is_closed():
            discard = True              # after a fork, or after the loop: nobody will need it here
        elif pythread.PyThread_get_thread_ident() != self.thread:
            self.enter_loop()           # or an error
        return BasePool.take_back(self, lease, discard)

    cdef int part(self, BaseConn lease, Stream stream) except -1:
        """The hook may take its time: then a task ends the loan."""
        cdef object verdict
        lease.parting = True
        lease.answered = True           # a connection that turns out to be dead is not replaced
        try:
            verdict = self._part(lease)
            if not isinstance(verdict, bool):
                (<AsyncConn>lease).last_words = self._spawn(verdict, partial(self._see_off, lease))
                return 0
        except:
            self.end_loan(lease, stream, ERROR)
            raise
        return self.end_loan(lease, stream, self.verdict(lease, stream) if verdict else ERROR)

    def _see_off(self, AsyncConn lease not None, hook):
        """The task of the hook has ended, perhaps before it began; its value is whether that succeeded."""
        cdef Stream stream = lease.stream
        # One that is not done has been given up with its loop.
        cdef bint accepted = hook.done() and not hook.cancelled() and hook.exception() is None and hook.result()
        lease.last_words = None
        self.end_loan(lease, stream, self.verdict(lease, stream) if accepted else ERROR)
