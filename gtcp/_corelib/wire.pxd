# Integers on the wire and the search for a delimiter.
from libc.stdint cimport uint32_t


cdef extern from "gtcp_wire.h" nogil:
    uint32_t get_length "gtcp_get_length"(const char* data, int size)
    void put_length "gtcp_put_length"(char* to, int size, uint32_t value)
    Py_ssize_t find "gtcp_find"(
        const char* data, Py_ssize_t size, const char* needle, Py_ssize_t needle_size)
