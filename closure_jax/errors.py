"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake of the caller: the message is one line that names the value, what was expected and the remedy.

    The command line prints it without a traceback and ends with exit status 2.
    """
