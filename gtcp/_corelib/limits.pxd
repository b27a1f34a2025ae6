# The largest size that Python knows.
cdef extern from "Python.h" nogil:
    const Py_ssize_t PY_SSIZE_T_MAX
