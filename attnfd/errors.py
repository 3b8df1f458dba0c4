"""The one exception that is the user's to mend."""


class UserError(ValueError):
    """Bad input: one line that names the key or file, what was found, what is allowed, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
