/* The few functions of greenlet's C API that the hub calls, by their places in its capsule, so that
 * building gtcp does not need greenlet (https://greenlet.readthedocs.io, "C API"). */
#ifndef GTCP_GREENLET_H
#define GTCP_GREENLET_H

#include <Python.h>

enum { GTCP_GREENLET_NEW = 3, GTCP_GREENLET_GETCURRENT = 4, GTCP_GREENLET_THROW = 5, GTCP_GREENLET_SWITCH = 6 };

static void **gtcp_greenlet_api = NULL;

static inline int gtcp_greenlet_import(void)
{
    if (gtcp_greenlet_api == NULL)
        gtcp_greenlet_api = (void **)PyCapsule_Import("greenlet._C_API", 0);
    return gtcp_greenlet_api == NULL ? -1 : 0;
}

static inline PyObject *gtcp_greenlet_new(PyObject *run, PyObject *parent)
{
    return ((PyObject * (*)(PyObject *, PyObject *)) gtcp_greenlet_api[GTCP_GREENLET_NEW])(run, parent);
}

static inline PyObject *gtcp_greenlet_current(void)
{
    return ((PyObject * (*)(void)) gtcp_greenlet_api[GTCP_GREENLET_GETCURRENT])();
}

static inline PyObject *gtcp_greenlet_switch(PyObject *to)
{
    return ((PyObject * (*)(PyObject *, PyObject *, PyObject *))
                gtcp_greenlet_api[GTCP_GREENLET_SWITCH])(to, NULL, NULL);
}

#endif
