# Which thread is Python's main one, where signal handlers run.
cdef extern from "gtcp_thread.h":
    bint is_main "gtcp_in_main_thread"() noexcept nogil
    void set_main "gtcp_set_main_thread"(unsigned long native_id)
    int watch_forks "gtcp_watch_forks_of_threads"()
