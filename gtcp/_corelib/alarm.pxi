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

    def __cinit__(self):
        self.at = NEVER
        self.sleeper_generation = -1

    cdef bint advance(self, int64_t moment) except -1:
        """Sets the alarm unless it is set to an earlier moment. False when nobody is there to hear it."""
        if self.sleeper_generation != <long>posix.generation:
            self.at = moment
            return False
        if moment < self.at:
            self.at = moment
            if self.sleeper is not None:
                self.sleeper.unpark()
        return True

    def attend(self):
        """The calling thread is the one that will sleep; False when there is one already."""
        if self.sleeper_generation == <long>posix.generation:
            return False
        self.sleeper_generation = <long>posix.generation
        return True

    def resign(self):
        """Nobody sleeps any more; the next moment that is set finds nobody to hear it."""
        self.sleeper_generation = -1
        self.at = NEVER

    def wait(self):
        """Sleeps until the alarm's moment, then forgets it."""
        while self.at > posix.now():
            self.sleeper = new_parker()
            self.sleeper.park(self.at)
            self.sleeper = None
        self.at = NEVER


alarm = Alarm()
cdef Alarm the_alarm = alarm
