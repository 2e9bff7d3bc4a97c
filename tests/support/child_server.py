# SPDX-License-Identifier: BSD-3-Clause
"""The process that forks the children of `run_child`, see children.py; it imports the modules that most need."""

from __future__ import annotations

import ctypes  # noqa: F401
import gc
import json
import os
import socket
import sys
import threading  # noqa: F401

import pmem2  # noqa: F401
from support import border  # noqa: F401

LONGEST_REQUEST = 1 << 20


def next_child(fd: int) -> str:
    """Fork a child for each request that comes from a socket; return the child's code in the child.

    The caller runs the code, so that the child ends as any interpreter ends.
    """
    gc.collect()
    connection = socket.socket(fileno=fd)
    while True:
        request, (output, errors), _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 2)
        child = os.fork()
        if child == 0:
            break
        os.close(output)
        os.close(errors)
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    connection.close()
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    code, arguments, environment, folder = json.loads(request)
    sys.argv[1:] = arguments
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    return str(code)
