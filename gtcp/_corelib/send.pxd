# How a task drives a coroutine.
from cpython.object cimport PyObject


cdef extern from "gtcp_send.h":
    enum:
        PYGEN_RETURN, PYGEN_NEXT
    void set_slot "gtcp_set_send_slot"(object type, int (*send)(object, object, PyObject**) except -1)
