/* SPDX-License-Identifier: BSD-3-Clause */
/* Access to Python objects by address, while the caller holds them: the only file that uses Python's C API. */
#ifndef PMEM2_PYTHON_OBJECTS_C
#define PMEM2_PYTHON_OBJECTS_C

#include "os.c"

#include <Python.h>

#ifdef PYPY_VERSION /* PyPy's objects have no address, and PyPy needs neither function */
static void guarded_immortalize(uintptr_t address)
{
    (void)address;
}

static int guarded_pack_pairs(uintptr_t address, uint64_t *numbers, size_t count)
{
    (void)address, (void)numbers, (void)count;
    return 0;
}
#else

/* Never free an object, not even when the interpreter tears down the module that holds it. */
static void guarded_immortalize(uintptr_t address)
{
    PyGILState_STATE state = PyGILState_Ensure(); /* cffi releases the GIL around every call */
    Py_IncRef((PyObject *)address);
    PyGILState_Release(state);
}

static int read_uint64(PyObject *object, uint64_t *number)
{
    if (!PyLong_CheckExact(object)) /* rejects bool, a subclass of int */
        return 0;
    *number = PyLong_AsUnsignedLongLong(object);
    return *number != UINT64_MAX || !PyErr_Occurred();
}

/*
 * Read the numbers of a list of tuples of two ints: ten times as fast as in Python. No Python code runs during the call
 * that could change the list. Return 1 on success; return 0 for any other object, which the caller handles in Python.
 */
static int guarded_pack_pairs(uintptr_t address, uint64_t *numbers, size_t count)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *list = (PyObject *)address;
    int ok = PyList_CheckExact(list) && (size_t)PyList_Size(list) == count;
    for (size_t i = 0; ok && i < count; i++) {
        PyObject *pair = PyList_GetItem(list, (Py_ssize_t)i);
        ok = PyTuple_CheckExact(pair) && PyTuple_Size(pair) == 2 &&
             read_uint64(PyTuple_GetItem(pair, 0), &numbers[2 * i]) &&
             read_uint64(PyTuple_GetItem(pair, 1), &numbers[2 * i + 1]);
    }
    PyErr_Clear();
    PyGILState_Release(state);
    return ok;
}
#endif

#endif
