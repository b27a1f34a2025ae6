# What a hub lets go on: greenlets, and those that need no stack of their own while they wait.
cimport cython

from types import GenericAlias

cimport gtcp._corelib.posix as posix


cdef class Runnable(Timed):
    """One that waits in a hub for a wake-up or its deadline."""
    cdef Hub hub
    cdef bint asleep                # until a wake-up or `deadline`
    cdef bint woken                 # which of the two it was
    cdef object thrown              # to be raised where it sleeps
    cdef Runnable next_ready         # in the queue of those that can go on
    cdef bint ready

    cdef int raise_thrown(self) except -1:
        if self.thrown is not None:
            error, self.thrown = self.thrown, None
            raise error
        return 0


cdef class Stackless(Runnable):
    """One that a carrier, a greenlet of the hub's, lends its stack while there is something to do."""

    cdef int go_on(self) except -1:
        """Does what can be done now. It may wait as greenlets do, and then takes the carrier's stack along."""
        raise NotImplementedError


@cython.final
cdef class Fiber(Runnable):
    """A function that runs as a greenlet of a hub."""
    cdef object stack               # the greenlet; None before it starts and after it ended
    cdef object function
    cdef tuple arguments
    cdef Signal done
    cdef object result
    cdef object error
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
