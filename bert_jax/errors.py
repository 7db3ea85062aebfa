"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in a config, a file or a command. Its text is one line: what, where, how to mend.

    Programs print it without a traceback and leave with a non-zero status; any other exception
    is a defect of this project and keeps its traceback.
    """


def one_line(error: BaseException, limit: int) -> str:
    """What a library says of an error, for the inside of a UserError."""
    return " ".join(str(error).split())[:limit]
