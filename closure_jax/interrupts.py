"""How work is asked to end: by SIGTERM or SIGINT, in a place from which it can go on. A SIGINT after that ends it at once.

Work that comes to no such place is interrupted where it is, by an exception. That may be swallowed by what runs then, and has to
wait while a compiler runs; a thread that sees the signal whatever runs ends the process a little later.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 20.0
"""Seconds in which work comes to such a place, or is interrupted where it is."""
GRACE = 5.0
"""Seconds after an interruption in which the process ends, or is ended."""

_asked: int | None = None


class Stopped(KeyboardInterrupt):
    """Work has ended where it can go on; the message says where, if there is something to say.

    Attributes:
      number: of the signal that asked for it.
    """

    def __init__(self, message: str = "", number: int | None = None):
        super().__init__(message)
        self.number = number or _asked or signal.SIGTERM


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Within, signals are answered as this module says; outside, and in other threads than the main one, as Python does."""
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    _asked = None
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    told = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(ours,), daemon=True)
    watcher.start()
    for number in SIGNALS:
        if before[number] != signal.SIG_IGN:  # a job in the background of a script is not asked by Ctrl-C
            signal.signal(number, _ask)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told)
        theirs.close()
        watcher.join()
        ours.close()
        _asked = None


def asked() -> int | None:
    """The signal by which the work was asked to end, or None."""
    return _asked


def check() -> None:
    """Ends the work where it was asked to: for places between two steps of what is not kept.

    Raises:
      Stopped: it was.
    """
    if _asked is not None:
        raise Stopped()


def _ask(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked is not None:
        if number == signal.SIGINT:
            _end(number, frame)
        return  # a scheduler may ask a group of processes, and one of them another
    _asked = number
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    if number == signal.SIGINT:
        print("closure_jax: stopping; once more to stop at once", file=sys.stderr, flush=True)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped()


def _watch(signals: socket.socket) -> None:
    """Ends the process `GRACE` after it should have ended by itself; returns where `signals`, numbers of signals, is closed."""
    first, until = 0, float("inf")
    while True:
        left = until - time.monotonic()
        ready, _, _ = select.select([signals], [], [], None if left == float("inf") else max(0.0, left))
        if not ready:
            os.write(2, b"closure_jax: stopped where it was; the same command continues\n")
            os._exit(128 + first)
        numbers = signals.recv(64)
        if not numbers:
            return
        for number in numbers:
            if first and number == signal.SIGINT:
                until = min(until, time.monotonic() + GRACE)
            elif not first and number in SIGNALS:
                first, until = number, time.monotonic() + PATIENCE + GRACE
