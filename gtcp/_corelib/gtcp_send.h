/* The slot by which a task drives a coroutine without an exception for its result (CPython 3.10). Cython fills the
 * other slots of asynchronous types, but not this one. */
#ifndef GTCP_SEND_H
#define GTCP_SEND_H

#include <Python.h>

static inline void gtcp_set_send_slot(PyObject *type, int (*send)(PyObject *, PyObject *, PyObject **))
{
    ((PyTypeObject *)type)->tp_as_async->am_send = (sendfunc)send;
}

#endif
