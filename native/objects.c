/* SPDX-License-Identifier: BSD-3-Clause */
/* Python's own objects, by their address, while the caller holds them: the one place that knows them. */

#ifdef PYPY_VERSION /* its objects have no address, and it needs neither */
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
#include <Python.h>

/* Let an object live for ever, also when the interpreter takes apart the module that has it. */
static void guarded_immortalize(uintptr_t address)
{
    PyGILState_STATE state = PyGILState_Ensure(); /* cffi has let it go */
    Py_IncRef((PyObject *)address);
    PyGILState_Release(state);
}

static int is_number(PyObject *object, uint64_t *number)
{
    if (!PyLong_CheckExact(object)) /* True is an int too, but no number */
        return 0;
    *number = PyLong_AsUnsignedLongLong(object);
    return *number != UINT64_MAX || !PyErr_Occurred();
}

/*
 * Read the numbers of a list of tuples of two ints, which from Python costs ten times as much. Nothing of Python's runs
 * meanwhile that could change them. 1 on success; 0 for what is anything else, which is for Python to look at.
 */
static int guarded_pack_pairs(uintptr_t address, uint64_t *numbers, size_t count)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *list = (PyObject *)address;
    int ok = PyList_CheckExact(list) && (size_t)PyList_Size(list) == count;
    for (size_t i = 0; ok && i < count; i++) {
        PyObject *pair = PyList_GetItem(list, (Py_ssize_t)i);
        ok = PyTuple_CheckExact(pair) && PyTuple_Size(pair) == 2 &&
             is_number(PyTuple_GetItem(pair, 0), &numbers[2 * i]) &&
             is_number(PyTuple_GetItem(pair, 1), &numbers[2 * i + 1]);
    }
    PyErr_Clear();
    PyGILState_Release(state);
    return ok;
}
#endif
