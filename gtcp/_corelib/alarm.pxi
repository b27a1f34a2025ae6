# When somebody has to look after idle connections: one sleeper for all pools, woken early when an earlier
# moment is set. Setting it takes no lock, so it may be done anywhere, finalizers and signal handlers included.
cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class Alarm:
    # The next moment, NEVER for none; who sleeps until then; whose sleeper that is, as a count of forks.
    cdef int64_t at
    cdef Parker sleeper
    cdef long sleeper_generation
    cdef long shift

    def __cinit__(self):
        self.at = NEVER
        self.sleeper_generation = -1

    cdef inline bint is_later(self, int64_t moment) noexcept:
        """Whether it has to be advanced for this moment."""
        return moment < self.at or self.sleeper_generation != <long>posix.generation

    cdef bint advance(self, int64_t moment) except -1:
        """Sets the alarm unless it is set to an earlier moment. False when nobody is there to hear it."""
        if self.sleeper_generation != <long>posix.generation:
            self.at = min(self.at, moment)
            return False
        if moment < self.at:
            self.at = moment
            if self.sleeper is not None:
                self.sleeper.unpark()
        return True

    def attend(self):
        """Somebody will sleep from now on, under the number that this answers; 0 when there is one already."""
        if self.sleeper_generation == <long>posix.generation:
            return 0
        self.sleeper_generation = <long>posix.generation
        self.shift += 1
        return self.shift

    def resign(self, long shift=0, /):
        """Nobody sleeps any more; the next moment that is set finds nobody to hear it.

        `shift`: the number under which somebody slept; nothing happens when another one has taken over.
        """
        if shift and shift != self.shift:
            return
        self.sleeper_generation = -1
        self.shift += 1
        self.at = NEVER

    def wait(self, long shift):
        """Sleeps until the alarm's moment, then forgets it; False when somebody else has taken over."""
        cdef Parker parker
        while shift == self.shift and self.at > posix.now():
            parker = new_parker()
            self.sleeper = parker
            parker.park(self.at)
        if shift != self.shift:
            return False
        self.sleeper = None
        self.at = NEVER
        return True


alarm = Alarm()
cdef Alarm the_alarm = alarm
