# Greenlet's C API: stacks that can be left and entered again.
cdef extern from "gtcp_greenlet.h":
    int load "gtcp_greenlet_import"() except -1
    object new "gtcp_greenlet_new"(object run, object parent)
    object current "gtcp_greenlet_current"()
    object switch "gtcp_greenlet_switch"(object to)
