"""Processes that end with the one that started them.

Run as a script, this becomes the command it is given, bound to its parent: `python lifetime.py COMMAND ARGUMENT...`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def exit_with_parent(number: signal.Signals) -> None:
    """Linux sends the signal when the parent ends; a parent that is gone already is noticed here."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(0)


if __name__ == "__main__":
    exit_with_parent(signal.SIGKILL)
    os.execv(sys.argv[1], sys.argv[1:])
