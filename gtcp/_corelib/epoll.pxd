# Readiness of many sockets at once; gtcp_epoll.h holds what differs between systems.
from libc.stdint cimport int64_t


cdef extern from "gtcp_epoll.h" nogil:
    ctypedef struct Event "gtcp_event":
        pass
    int create "gtcp_epoll_create"()
    int add "gtcp_epoll_add"(int epoll, int fd, void* data)
    int remove "gtcp_epoll_del"(int epoll, int fd)
    int copy "gtcp_epoll_copy"(int fd)
    int wait "gtcp_epoll_wait"(int epoll, Event* events, int room, int64_t timeout)
    void* data "gtcp_event_data"(const Event* event)
    bint says_in "gtcp_event_in"(const Event* event)
    bint says_out "gtcp_event_out"(const Event* event)
    bint says_end "gtcp_event_end"(const Event* event)
    int bell_create "gtcp_bell_create"()
    void bell_ring "gtcp_bell_ring"(int fd)
    void bell_silence "gtcp_bell_silence"(int fd)
