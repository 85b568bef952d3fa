"""What all commands share: a parser that raises the user's mistakes, and their one line and exit status."""

import argparse
import contextlib
import errno
import importlib.util
import io
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from closure_jax import interrupts
from closure_jax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors; options can't be abbreviated."""

    def __init__(self, prog: str, description: str):
        # Abbreviations would change their meaning with the next option.
        super().__init__(prog=prog, allow_abbrev=False, description=description)

    def options(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options of a command that takes no --config.FIELD=VALUE.

        Raises:
          UserError: they are impossible, or one is given twice, with two values, the second of which would count.
        """
        self._check_once(arguments)
        return self.parse_args(arguments)

    def options_and_fields(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The options as `options` gives them, and FIELD=VALUE of each --config.FIELD=VALUE."""
        fields = [word for word in arguments if word.startswith("--config.")]
        self._check_once(fields)
        options = self.options([word for word in arguments if word not in fields])
        return options, [word.removeprefix("--config.") for word in fields]

    def _check_once(self, arguments: Sequence[str]) -> None:
        once: dict[str, str] = {}
        for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
            name, equals, value = word.partition("=")
            action = self._option_string_actions.get(name)
            if not name.startswith("--") or (action is not None and action.nargs == 0):
                continue
            value = value if equals or name.startswith("--config.") else following
            if once.setdefault(name, value) != value:
                raise UserError(f"{name} is given twice, as {once[name]} and as {value}: expected one of them")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the options")


def path(text: str) -> pathlib.Path:
    """The path that an option gives; an empty one, which would mean the current folder, is refused."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: expected a path")
    return pathlib.Path(text)


def run(command: Callable[[], int | None], continues: bool = False) -> int:
    """Runs a command and returns its exit status.

    Args:
      command: what to run; it may return an exit status of its own.
      continues: started again, it goes on where it was; asked to end, it may come to such a place first, see `interrupts`.
    Returns:
      what the command returned, or 0; 2 after a mistake of the user's, which is told in one line on stderr; 130 after SIGINT, 143
      after SIGTERM.
    """
    stopped = "stopped; the same command continues" if continues else "stopped"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a path may hold what the terminal's encoding does not
    try:
        _check_flags()
        with interrupts.listening() if continues else contextlib.nullcontext():
            return command() or 0
    except UserError as error:
        return refuse(str(error))
    except OSError as error:
        in_text = re.findall(r"'(/[^'\"]+)'", str(error))  # an error of a copied folder names its files there alone
        file = error.filename or (in_text[-1] if in_text else "")
        where = f" '{file}'" if file else ""
        if isinstance(error, BrokenPipeError):
            _drop_output()
            print("closure_jax: nobody reads the output: stopped", file=sys.stderr)
            return 128 + signal.SIGPIPE
        # the error of a copied folder has the number in its text alone
        if error.errno in _FULL or any(os.strerror(number) in str(error) for number in _FULL):
            return refuse(
                f"no space left on the disk{where}: expected room; make some, and give the same command again"
            )
        return refuse(
            f"{error.strerror or error}{where}: expected a path that can be used; check it and its permissions"
        )
    except MemoryError:
        return refuse("out of memory: expected smaller sizes; --dry_run shows what each phase needs")
    except interrupts.Stopped as end:
        print("closure_jax: " + "; ".join(filter(None, (str(end), stopped))), file=sys.stderr)
        return 128 + end.number
    except KeyboardInterrupt:
        print(f"closure_jax: {stopped}", file=sys.stderr)
        return 130
    except Exception:  # jax has no type of its own for what it can't start with
        if (reason := _why_jax_does_not_start()) is None:
            raise
        return refuse(reason)


def leave(status: int) -> NoReturn:
    """Ends the process with an exit status.

    A write of a checkpoint that failed early leaves threads of Orbax that wait for minutes for what will not come: after a
    refusal nobody waits for them.
    """
    waiting = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    if status and waiting:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _drop_output() -> None:
    """Lets what is still to be printed go nowhere: Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _why_jax_does_not_start() -> str | None:
    """Which variable of the environment keeps jax from starting; None where it starts, or none is to blame."""
    given = {name: value for name, value in os.environ.items() if name.startswith("JAX_") and value}
    if not given:
        return None
    try:
        import jax  # --help does without

        jax.devices()
        return None
    except Exception as error:
        reason = str(error)
    for name, value in given.items():
        if name != "JAX_PLATFORMS" and name.lower() in reason.lower():
            return f"{name}={value}: jax does not take it ({reason}): expected a value that it knows; or unset it"
    # of a platform that is known but not here jax has no message
    if (platforms := given.get("JAX_PLATFORMS")) is None:
        return None
    return f"JAX_PLATFORMS={platforms}: jax can't start it here: expected a platform that is here, such as cpu; or unset it"


def _check_flags() -> None:
    """Raises UserError for a number of devices that is none: XLA would answer with all flags that it has, and end us."""
    for word in os.environ.get("XLA_FLAGS", "").split():
        name, _, value = word.partition("=")
        if name == "--xla_force_host_platform_device_count" and not (value.isascii() and value.isdigit()):
            raise UserError(f"XLA_FLAGS={word}: expected a whole number of devices; or unset it")


def refuse(message: str) -> int:
    """Prints the message as one line on stderr and returns exit status 2."""
    print("closure_jax: error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def require(*modules: str) -> None:
    """Refuses where one of the packages that only developers need is not installed.

    Raises:
      UserError: with their names and the remedy.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{sys.executable} lacks {', '.join(missing)}: expected the packages of the extra dev; "
            f"install them with {sys.executable} -m pip install -e '.[dev]'"
        )
