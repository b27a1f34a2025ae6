# Waiting as a greenlet: the hub sleeps in epoll for many calls and switches to the one whose socket, turn or
# deadline has come; no Python code runs in between.
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from types import GenericAlias

cimport gtcp._corelib.epoll as epoll
cimport gtcp._corelib.greenlet as greenlet
cimport gtcp._corelib.posix as posix
cimport gtcp._corelib.pythread as pythread
cimport gtcp._corelib.way as way

cdef enum:
    EVENTS = 256                # taken from the kernel at once
    FAIR_SHARE = 16 * CALL      # what a greenlet may spend before others have their turn
    SPARE_CARRIERS = 64         # that rest until there is something to carry; those above end


@cython.final
cdef class Fiber(Runnable):
    """A function that runs as a greenlet of a hub."""
    cdef Hub hub
    cdef object stack               # the greenlet; None before it starts and after it ended
    cdef object function
    cdef tuple arguments
    cdef Signal done
    cdef object result
    cdef object error
    cdef int64_t naps               # how often it has slept
    cdef bint heeded                # somebody was told the error, or nobody needs to be

    def __cinit__(self):
        self.done = Signal()

    def __init__(self):
        raise TypeError("greenlets are made by spawn")

    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __del__(self):
        if self.error is not None and not self.heeded and self.hub.log is not None \
                and self.hub.generation == posix.generation:
            self.hub.log(self.error)

    def _run(self):
        if self.function is None:
            raise RuntimeError("the greenlet has run already")
        try:
            self.raise_thrown()         # killed before it began
            try:
                self.result = self.function(*self.arguments)
            finally:
                self.hub.let_leave()
        except BaseException as error:
            self.error = error
        self.function = self.arguments = None
        self.hub.ended(self)

    def join(self, timeout=None):
        """Waits until the function has returned; False when `timeout` seconds passed first."""
        return self.done.wait(None if timeout is None else to_deadline(timeout))

    def get(self, timeout=None):
        """The function's value, or its exception. Timeout when it has not ended after `timeout` seconds."""
        if not self.join(timeout):
            raise Timeout("timed out while waiting for a greenlet")
        self.heeded = True
        if self.error is not None:
            raise self.error
        return self.result

    def kill(self):
        """Raises GreenletExit in the function where it waits next, or now if it waits already. From any thread.

        A function that has not begun never does.
        """
        if not self.done.is_set and self.hub is not None:
            self.hub.throw_in(self, greenlet_exit()())

    @property
    def dead(self):
        """The function has returned or raised."""
        return self.done.is_set


def greenlet_exit():
    """What ends a greenlet quietly."""
    import greenlet as module
    return module.GreenletExit


@cython.final
cdef class FiberParker(Parker):
    cdef Fiber fiber

    cdef int park(self, int64_t deadline) except -1:
        while not self.woken:
            if not self.fiber.hub.sleep(self.fiber, deadline):
                return self.woken
        return 1

    cdef int unpark(self) except -1:
        self.woken = True
        self.fiber.hub.wake(self.fiber)
        return 0


@cython.final
cdef class Hub(Scheduler):
    """The greenlets of one thread and what they wait for.

    `run` must be called in the thread that made the hub; `spawn` and `stop` may be called from any thread.
    """
    cdef unsigned long thread
    cdef object main                # the greenlet that runs `run`
    cdef Fiber root                 # whose end `run` waits for, or None
    cdef Fiber current
    cdef int64_t credit             # what it may spend before it steps aside
    cdef list laden                 # connections with gathered sends of the greenlet that runs
    cdef list carriers              # those that rest
    cdef bint stopping
    cdef bint looked                # for signals, since something came
    cdef object interrupt           # Ctrl-C for a program whose root has ended already
    cdef set alive
    cdef object log

    def __cinit__(self, log=None):
        self.laden = []
        self.carriers = []
        self.alive = set()
        self.log = log

    def __init__(self, log=None):
        try:
            greenlet.load()
        except (ImportError, AttributeError) as missing:
            raise ImportError("greenlets need the greenlet package: pip install gtcp[greenlets]") from missing
        self.open()

    # -- the loop

    def run(self, Fiber root=None):
        """Runs greenlets until `root` has ended, or without one until `stop`; those left get GreenletExit."""
        if self.poller < 0:
            raise RuntimeError("the hub is not open")
        if root is not None and root.hub is not self:
            raise ValueError("the greenlet belongs to another hub")
        if way.get() != NULL:
            raise RuntimeError("this thread runs greenlets already")
        self.thread = pythread.PyThread_get_thread_ident()
        self.main = greenlet.current()
        self.root = root
        way.set_of_thread(<PyObject*>self)
        try:
            try:
                while not self.over():
                    try:
                        self.turn()
                    except BaseException as error:
                        # A signal handler raised: the one who waits for the result gets it.
                        if root is None or root.done.is_set:
                            raise
                        self.throw_in(root, error)
            finally:
                self.end_all()
            if self.generation != posix.generation:
                raise RuntimeError("the greenlets belong to the process that forked this one")
            if self.interrupt is not None:
                raise self.interrupt
        finally:
            way.set_of_thread(NULL)
            self.main = self.root = self.interrupt = None
            self._close()               # whoever keeps a greenlet or a connection keeps no descriptor of ours

    cdef bint over(self) noexcept:
        return self.stopping or self.generation != posix.generation \
            or (self.root is not None and self.root.done.is_set)

    def stop(self):
        """Ends `run`; greenlets that wait get GreenletExit. From any thread."""
        self.stopping = True
        if self.sleeping:
            epoll.bell_ring(self.bell)

    def spawn(self, function, *arguments):
        """Runs `function(*arguments)` as a greenlet. From any thread."""
        cdef Fiber fiber
        if self.stopping:
            raise RuntimeError("the hub has been stopped")
        fiber = self.new_fiber(function, arguments)
        self.wake(fiber)
        return fiber

    cdef Fiber new_fiber(self, object function, tuple arguments):
        cdef Fiber fiber = Fiber.__new__(Fiber)
        fiber.hub = self
        fiber.function = function
        fiber.arguments = arguments
        self.alive.add(fiber)
        return fiber

    cdef int end_all(self) except -1:
        """Those that still wait are ended: whatever they wait for from now on, they are told again."""
        cdef Runnable runnable
        self.stopping = True
        for _ in range(100):
            if not self.alive or self.generation != posix.generation:
                break
            for runnable in list(self.alive):
                self.throw_in(runnable, greenlet_exit()())
            self.run_ready()
        self.carriers.clear()
        return 0

    cdef int turn(self) except -1:
        """Runs what can go on, then sleeps until something comes."""
        cdef epoll.Event[EVENTS] events
        cdef int64_t wait
        cdef int n, i
        self.run_ready()
        self.gone.clear()
        if self.over():
            return 0
        wait = 0 if self.first_ready is not None else until_look(self.timers.left(), self.looked)
        self.sleeping = wait != 0
        with nogil:
            n = epoll.wait(self.poller, events, EVENTS, wait)
        self.sleeping = False
        if n < 0 and n != -posix.EINTR:
            raise socket_error(n)
        self.looked = n == 0
        if n <= 0:
            PyErr_CheckSignals()
        for i in range(n):
            self.dispatch(&events[i])
        self.fire_timers()
        return 0

    cdef int run_ready(self) except -1:
        """Switches to each that could go on when the turn began; what becomes ready meanwhile comes next turn."""
        self.turn_end = self.last_ready
        while self.turn_end is not None and self.generation == posix.generation:
            self.switch_to(self.next_to_run())
        return 0

    cdef Fiber next_to_run(self):
        """The greenlet that runs next: the first of the queue, or one that carries it."""
        if isinstance(self.first_ready, Fiber):
            return <Fiber>self.next_of_turn()
        return self.carriers.pop() if self.carriers else self.new_fiber(self._carry, ())

    def _carry(self):
        """What a carrier does: those that need no stack while they wait go on on its own, one after the other."""
        cdef Fiber carrier
        while self.generation == posix.generation:
            if self.turn_end is not None and isinstance(self.first_ready, Stackless):
                self.credit = FAIR_SHARE
                (<Stackless>self.next_of_turn()).go_on()
            elif len(self.carriers) < SPARE_CARRIERS:
                carrier = self.current
                self.let_leave()        # first: that may wait, and who rests can be taken at any moment
                self.carriers.append(carrier)
                if self.sleep(carrier, NEVER) and carrier in self.carriers:
                    self.carriers.remove(carrier)       # woken by what it waited for before: nobody has taken it
            else:
                return

    cdef int switch_to(self, Fiber fiber) except -1:
        if fiber.done.is_set:
            return 0
        if fiber.stack is None:
            fiber.stack = greenlet.new(fiber._run, self.main)
        self.current = fiber
        self.credit = FAIR_SHARE
        try:
            greenlet.switch(fiber.stack)
        finally:
            self.current = None
        return 0

    cdef int switch_on(self) except -1:
        """Switches from a greenlet to the next, without a stop at the hub if that has begun and has a stack."""
        cdef Runnable first = self.first_ready
        cdef bint begun = isinstance(first, Fiber) and (<Fiber>first).stack is not None
        first = None                    # the greenlet's stack keeps nobody while it sleeps
        if begun and self.turn_end is not None and self.generation == posix.generation:
            self.current = <Fiber>self.next_of_turn()
            self.credit = FAIR_SHARE
            greenlet.switch(self.current.stack)
        else:
            greenlet.switch(self.main)
        return 0

    cdef int throw_in(self, Runnable runnable, object error) except -1:
        runnable.thrown = error
        return self.wake(runnable)

    cdef int forget(self, Runnable runnable) except -1:
        """It will never wait again."""
        self.timers.cancel(runnable)
        self.alive.discard(runnable)
        return 0

    cdef int ended(self, Fiber fiber) except -1:
        """A greenlet's function has returned."""
        self.forget(fiber)
        fiber.stack = None
        fiber.done.set()
        if isinstance(fiber.error, (KeyboardInterrupt, SystemExit)) and self.root is not None \
                and fiber is not self.root:
            # It was meant for the program, not for this greenlet.
            fiber.heeded = True
            if not self.root.done.is_set:
                return self.throw_in(self.root, fiber.error)
            self.interrupt = fiber.error
        if fiber.error is not None and isinstance(fiber.error, greenlet_exit()):
            fiber.heeded = True
        return 0

    # -- sleeping, called by greenlets

    cdef int sleep(self, Fiber fiber, int64_t deadline) except -1:
        """Lets others run until somebody wakes the greenlet (1) or the deadline passes (0)."""
        cdef int64_t naps
        if fiber is not self.current or fiber is None:
            raise RuntimeError("only a greenlet of this hub can wait here")
        if fiber.thrown is None:
            if deadline <= posix.now():
                return 0
            naps = fiber.naps
            self.let_leave()
            if fiber.naps != naps:
                return 1                # it has slept in there: whoever woke it then may have meant this sleep
            fiber.naps += 1
            self.timers.set(fiber, deadline)
            fiber.woken = fiber.ready       # woken since it last slept: whatever it was is looked at first
            fiber.asleep = True
            self.switch_on()
            fiber.asleep = False
            fiber.deadline = NEVER
        fiber.raise_thrown()
        return fiber.woken

    cdef int step_aside(self) except -1:
        """Lets the others have their turn, and those whose sockets became ready meanwhile."""
        cdef Fiber fiber = self.current
        if fiber is not None:
            self.wake(fiber)
        return self.sleep(fiber, NEVER) and 0

    cdef int pay(self, int64_t cost) except -1:
        if self.credit <= 0 and self.current is not None:
            self.step_aside()
        self.credit -= cost
        return 0

    cdef bint flushes(self) noexcept:
        return self.current is not None

    cdef int gathers(self, Gatherer gatherer) except -1:
        self.laden.append(gatherer)
        return 0

    cdef int let_leave(self) except -1:
        """Gathered sends of the greenlet leave: it is about to wait, or ends."""
        cdef Gatherer gatherer
        while self.laden and self.generation == posix.generation:
            gatherer = self.laden.pop()
            gatherer.let_leave()
        return 0

    cdef size_t who(self) noexcept:
        return <size_t><PyObject*>self.current if self.current is not None else <size_t>self.thread

    cdef Parker parker(self):
        cdef FiberParker parker
        if self.current is None:
            raise RuntimeError("only a greenlet of this hub can wait here")
        parker = FiberParker()
        parker.fiber = self.current
        return parker

    cdef int wait_watched(self, Watch watch, int events, int64_t deadline) except -1:
        cdef Fiber fiber = self.current
        cdef object other = None
        if events & posix.POLLIN:
            watch.reader = fiber
        if events & posix.POLLOUT:
            other = watch.writer        # a receiver with gathered sends, overtaken by a sender, or the reverse
            watch.writer = fiber
        try:
            return self.sleep(fiber, deadline)
        finally:
            if watch.reader is fiber:
                watch.reader = None
            if watch.writer is fiber:
                watch.writer = None
            if other is not None:
                self.wake(<Timed>other)     # the room in the kernel was its event, too

    cdef int wait_ready(self, int fd, int events, int64_t deadline) except -1:
        return len(self.wait_any({fd: events}, deadline))

    cdef list wait_any(self, dict fds, int64_t deadline):
        cdef list watches = []
        cdef list ready
        cdef Watch watch
        cdef Fiber fiber = self.current
        try:
            for fd in fds:
                watch = self.watch(fd)
                watches.append(watch)
                watch.reader = fiber if fds[fd] & posix.POLLIN else None
                watch.writer = fiber if fds[fd] & posix.POLLOUT else None
            while True:
                ready = sleep_until_any(fds, 0)
                if ready or not self.sleep(fiber, deadline):
                    return ready
        finally:
            for watch in watches:
                watch.reader = watch.writer = None
                self.unwatch(watch)


def current_hub():
    """The hub that runs the calling greenlet; None outside of one."""
    return current_way() if isinstance(current_way(), Hub) else None
