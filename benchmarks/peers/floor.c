/* What any Python call costs that makes the two system calls of an exchange: no checks, no errors, no parsing beyond the
 * length, memory that is there already. Built at run time as an extension module.
 *
 *   exchange(fd, data, option=None, *, timeout=None) -> bytes    packages of up to LIMIT bytes with a 2-byte header */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/socket.h>

enum { LIMIT = 16382, HEADER = 2 };

static unsigned char in[LIMIT + HEADER];

static PyObject *exchange(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    (void)module, (void)keywords; /* the timeout is the socket's SO_RCVTIMEO */
    unsigned char out[LIMIT + HEADER];
    if (count < 2 || !PyBytes_Check(args[1]) || PyBytes_GET_SIZE(args[1]) > LIMIT)
        return PyErr_Format(PyExc_ValueError, "a descriptor and up to %d bytes", LIMIT);
    int fd = (int)PyLong_AsLong(args[0]);
    Py_ssize_t size = PyBytes_GET_SIZE(args[1]), have = 0, need = HEADER;
    out[0] = (unsigned char)(size >> 8);
    out[1] = (unsigned char)size;
    memcpy(out + HEADER, PyBytes_AS_STRING(args[1]), (size_t)size);
    if (send(fd, out, (size_t)(HEADER + size), MSG_NOSIGNAL) != HEADER + size)
        return PyErr_SetFromErrno(PyExc_OSError);
    while (have < need) {
        Py_ssize_t got;
        Py_BEGIN_ALLOW_THREADS
        got = recv(fd, in + have, sizeof in - (size_t)have, 0);
        Py_END_ALLOW_THREADS
        if (got <= 0)
            return PyErr_SetFromErrno(PyExc_OSError);
        have += got;
        need = have < HEADER ? HEADER : HEADER + (in[0] << 8 | in[1]);
    }
    return PyBytes_FromStringAndSize((char *)in + HEADER, need - HEADER);
}

static PyMethodDef methods[] = {
    {"exchange", (PyCFunction)(void (*)(void))exchange, METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef floor_module = {PyModuleDef_HEAD_INIT, .m_name = "floor", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_floor(void) { return PyModule_Create(&floor_module); }
