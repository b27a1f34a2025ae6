/* Objects of a Python class made without the search for __new__ and without __init__. */
#ifndef GTCP_OBJECT_H
#define GTCP_OBJECT_H

#include <Python.h>

static inline PyObject *gtcp_new_object(PyObject *type, PyObject *args)
{
    return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, args, NULL);
}

#endif
