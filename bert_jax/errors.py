"""What ends a program without being a defect of it."""


class UserError(ValueError):
    """A mistake in a config, a file or a command. Its text is one line: what, where, how to mend.

    Programs print it without a traceback and leave with a non-zero status; any other exception
    is a defect of this project and keeps its traceback.
    """


class Preempted(Exception):
    """The run was told to stop, and what it had done is saved: the same command goes on."""


def one_line(error: BaseException, limit: int) -> str:
    """What a library says of an error, for the inside of a UserError."""
    text = " ".join(str(error).split())
    if len(text) <= limit:
        return text
    return (text[:limit].rpartition(" ")[0] or text[:limit]) + " …"
