# Who can go on, first come first served: greenlets, and those that need no stack of their own while they wait.
from libc.stdint cimport int64_t

cimport gtcp._corelib.epoll as epoll


cdef class Runnable(Timed):
    """One that waits in a hub for a wake-up or its deadline."""
    cdef bint asleep                # until a wake-up or `deadline`
    cdef bint woken                 # which of the two it was
    cdef object thrown              # to be raised where it sleeps
    cdef Runnable next_ready        # in the queue of those that can go on
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


cdef class Scheduler(Poller):
    """Wakes those whose socket is ready, whose deadline has come or whom somebody calls, and says who is next."""
    cdef Runnable first_ready       # those that can go on, first come first served
    cdef Runnable last_ready
    cdef Runnable turn_end          # the last of those whose turn it is, None once it has begun
    cdef Timers timers              # those that sleep with a deadline
    cdef bint sleeping              # the thread does, until the bell or an event

    def __cinit__(self, *args, **kwargs):
        self.timers = Timers()

    cdef int wake(self, Timed timed) except -1:
        """Lets one go on. From any thread."""
        cdef Runnable runnable = <Runnable>timed
        runnable.woken = True
        return self.enqueue(runnable)

    cdef int enqueue(self, Runnable runnable) except -1:
        if runnable.ready:
            return 0
        runnable.ready = True
        if self.last_ready is None:
            self.first_ready = runnable
        else:
            self.last_ready.next_ready = runnable
        self.last_ready = runnable
        if self.sleeping:
            epoll.bell_ring(self.bell)
        return 0

    cdef Runnable next_of_turn(self):
        """Takes the first out of the queue; there is one until the turn ends."""
        cdef Runnable first = self.first_ready
        self.first_ready = first.next_ready
        if self.first_ready is None:
            self.last_ready = None
        if first is self.turn_end:
            self.turn_end = None
        first.next_ready = None
        first.ready = False
        return first

    cdef int fire_timers(self) except -1:
        """Lets those go on whose deadline has passed; that nobody woke them tells them why."""
        cdef Runnable runnable
        while True:
            runnable = <Runnable>self.timers.pop_due()
            if runnable is None:
                return 0
            if runnable.asleep:
                self.enqueue(runnable)
