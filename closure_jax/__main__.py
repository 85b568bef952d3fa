"""`python -m closure_jax EXPERIMENT.py[:preset] ...` and `python -m closure_jax COMMAND ...`."""

import os
import signal
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: before a command begins there is nothing to keep, and an import may swallow an exception."""
    os.write(2, b"closure_jax: stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)  # until the command begins, see `commands.main`
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # the launcher holds it back while Python starts

    from closure_jax.commands import cli, main

    cli.leave(main())
