/* The way to wait of the calling thread, and of all threads that have none of their own; NULL: the thread sleeps.
 * Both are borrowed: whoever sets one keeps it alive. */
#ifndef GTCP_WAY_H
#define GTCP_WAY_H

#include <Python.h>
#include <pthread.h>

#include "gtcp_thread.h"

static __thread GTCP_QUICK PyObject *gtcp_thread_way = NULL;
static PyObject *gtcp_common_way = NULL;

static inline PyObject *gtcp_get_way(void) { return gtcp_thread_way != NULL ? gtcp_thread_way : gtcp_common_way; }
static inline void gtcp_set_thread_way(PyObject *way) { gtcp_thread_way = way; }
static inline void gtcp_set_common_way(PyObject *way) { gtcp_common_way = way; }

/* The greenlets of a thread are the parent's: a child that was forked in one blocks as a thread does. */
static inline void gtcp_forget_thread_way(void) { gtcp_thread_way = NULL; }
static inline int gtcp_watch_forks_of_ways(void) { return pthread_atfork(NULL, NULL, gtcp_forget_thread_way); }

#endif
