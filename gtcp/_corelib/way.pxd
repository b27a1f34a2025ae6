# Which way to wait is in force.
from cpython.object cimport PyObject


cdef extern from "gtcp_way.h":
    PyObject* get "gtcp_get_way"()
    void set_of_thread "gtcp_set_thread_way"(PyObject* way)
    void set_common "gtcp_set_common_way"(PyObject* way)
    int watch_forks "gtcp_watch_forks_of_ways"()
