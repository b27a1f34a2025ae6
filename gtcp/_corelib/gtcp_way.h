/* The way to wait of the calling thread, and of all threads that have none of their own; NULL: the thread sleeps.
 * Both are borrowed: whoever sets one keeps it alive. */
#ifndef GTCP_WAY_H
#define GTCP_WAY_H

#include <Python.h>

/* glibc keeps room for the few variables of libraries that ask for the quick kind; others may refuse to load them. */
#ifdef __GLIBC__
#define GTCP_QUICK __attribute__((tls_model("initial-exec")))
#else
#define GTCP_QUICK
#endif

static __thread GTCP_QUICK PyObject *gtcp_thread_way = NULL;
static PyObject *gtcp_common_way = NULL;

static inline PyObject *gtcp_get_way(void) { return gtcp_thread_way != NULL ? gtcp_thread_way : gtcp_common_way; }
static inline void gtcp_set_thread_way(PyObject *way) { gtcp_thread_way = way; }
static inline void gtcp_set_common_way(PyObject *way) { gtcp_common_way = way; }

#endif
