# A server's loop around a function, with nothing in between.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memset


@cython.final
cdef class PkgHandler:
    """A handler that answers each package with what `function` makes of it, or with nothing for None."""
    cdef object function
    cdef object option

    def __cinit__(self, function, option):
        self.function = function
        self.option = option

    def __call__(self, BlockingConn conn not None):
        cdef object function = self.function
        cdef object retry = None if self.option is None else self.option.retry
        cdef object request, reply
        cdef Unit unit
        memset(&unit, 0, sizeof(Unit))
        unit.kind = PKG
        get_option(self.option, &unit)
        while True:
            request = conn.peel(&unit)
            if request is None:
                PyErr_CheckSignals()    # nobody else does when the function is no Python code and never waits
                request = conn._recv_unless_ended(&unit, conn.recv_deadline)
                if request is None:
                    return
            reply = function(request)
            if reply is not None and not slip_pkg(conn, reply, &unit):
                conn._send_pkg(reply, &unit, retry, conn.send_deadline)


cdef inline bint slip_pkg(BlockingConn conn, object data, Unit* unit) except -1:
    """`slip` for a package, if it is one that can be sent."""
    cdef Out out
    if not PyBytes_CheckExact(data) or PyBytes_GET_SIZE(data) > unit.limit:
        return False
    memset(&out, 0, sizeof(Out))
    out.data, out.size = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    frame(&out, unit)
    return conn.slip(&out)
