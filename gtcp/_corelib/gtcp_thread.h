/* Which thread is Python's main one, where signal handlers run. */
#ifndef GTCP_THREAD_H
#define GTCP_THREAD_H

#include <Python.h>
#include <pthread.h>

/* glibc keeps room for the few variables of libraries that ask for the quick kind; others may refuse to load them. */
#ifdef __GLIBC__
#define GTCP_QUICK __attribute__((tls_model("initial-exec")))
#else
#define GTCP_QUICK
#endif

static unsigned long gtcp_main_thread = 0;
/* 1 yes, -1 no, 0: this thread has not asked yet. */
static __thread GTCP_QUICK signed char gtcp_is_main_thread = 0;

static inline int gtcp_in_main_thread(void)
{
    if (gtcp_is_main_thread == 0)
        gtcp_is_main_thread = PyThread_get_thread_native_id() == gtcp_main_thread ? 1 : -1;
    return gtcp_is_main_thread > 0;
}

static inline void gtcp_set_main_thread(unsigned long native_id) { gtcp_main_thread = native_id; }

/* A fork leaves only the thread that made it, which is the child's main one. */
static void gtcp_become_main_thread(void)
{
    gtcp_main_thread = 0;
    gtcp_is_main_thread = 1;
}

static inline int gtcp_watch_forks_of_threads(void) { return pthread_atfork(NULL, NULL, gtcp_become_main_thread); }

#endif
