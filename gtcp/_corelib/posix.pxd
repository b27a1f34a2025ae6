# The boundary to the operating system; gtcp_posix.h holds what differs between them.
from libc.stdint cimport int64_t


cdef extern from "gtcp_posix.h" nogil:
    const int64_t SECOND "GTCP_SECOND"
    const int64_t MILLISECOND "GTCP_MILLISECOND"
    const Py_ssize_t STRIDE "GTCP_STRIDE"
    const unsigned long generation "gtcp_generation"

    int64_t now "gtcp_now"()
    int64_t floor_power "gtcp_floor_power"(int64_t x)
    Py_ssize_t recv "gtcp_recv"(int fd, char* where, Py_ssize_t room, int flags)
    Py_ssize_t recv_two "gtcp_recv_two"(
        int fd, char* first, Py_ssize_t first_room, char* second, Py_ssize_t second_room, int flags)
    Py_ssize_t send "gtcp_send"(int fd, const char* data, Py_ssize_t size, int flags)
    Py_ssize_t send_framed "gtcp_send_framed"(
        int fd, const char* head, Py_ssize_t head_size,
        const char* data, Py_ssize_t size, Py_ssize_t sent, int flags)
    int poll_one "gtcp_poll_one"(int fd, int events, int64_t timeout)
    int look "gtcp_look"(int fd)
    int unconfirmed "gtcp_unconfirmed"(int fd)
    int set_timeout "gtcp_set_timeout"(int fd, int which, int64_t timeout)
    int set_abort "gtcp_set_abort"(int fd)
    int adopt "gtcp_adopt"(int fd)
    int set_nonblocking "gtcp_set_nonblocking"(int fd)
    int accept "gtcp_accept"(int listener)
    int shutdown "gtcp_shutdown"(int fd, int how)
    int close "gtcp_close"(int fd)
    int watch_forks "gtcp_watch_forks"()

    int poll_many "gtcp_poll"(pollfd* fds, int count, int64_t timeout)

    struct pollfd:
        int fd
        short events
        short revents

    enum:
        POLLIN, POLLOUT, POLLERR, POLLHUP
        MSG_DONTWAIT
        SHUT_RD, SHUT_WR, SHUT_RDWR
        SO_RCVTIMEO, SO_SNDTIMEO
        EAGAIN, EWOULDBLOCK, ENOSYS, EINTR, EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP
        EEXIST, ENOBUFS, ENOMEM, EMFILE, ENFILE, EPIPE
