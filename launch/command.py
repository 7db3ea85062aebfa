"""What the launchers share: a command line that teaches, argument lists, and what may stand in
them. No launcher gives a shell a string that it did not quote word by word."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

# What a run ends with that was told to stop and has saved its state: it alone is started again.
PREEMPTED = 143
# What a process ends with that stops because another is gone: the other's status counts.
LOST = 75


class Mistake(ValueError):
    """The user can mend this. One line: what, where, how. Launchers end with status 2."""


class Parser(argparse.ArgumentParser):
    """Options up to `--`, and after it the command to start. --help prints the module's text."""

    def __init__(self, teaching: str, module: str) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=teaching.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise Mistake(f"{message}; see {self.prog} --help")

    def split(
        self,
        words: Sequence[str],
        needed: Callable[[argparse.Namespace], bool] = lambda options: True,
    ) -> tuple[argparse.Namespace, list[str]]:
        """Options, and the command behind `--`. Raises Mistake where one is `needed` by the
        options and none is there, or a word of it cannot be an argument of a process."""
        at = words.index("--") if "--" in words else len(words)
        options, command = self.parse_args(words[:at]), list(words[at + 1 :])
        if needed(options) and not command:
            self.error("the command to start is missing: give it behind --")
        if any("\0" in word for word in command):
            self.error("a word of the command holds a NUL, which no argument can")
        return options, command


def start(main: Callable[[list[str]], int]) -> NoReturn:
    """Call main with the words of the command line and leave with the status it gives."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Mistake as mistake:
        print("error: " + " ".join(str(mistake).split()), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has enough
        sys.stdout = open(os.devnull, "w")
        sys.exit(0)


def checked(option: str, value: str, pattern: str, example: str) -> str:
    """The value, where all of it matches. Raises Mistake."""
    if not re.fullmatch(pattern, value, re.ASCII):
        raise Mistake(f"{option}={value!r}: not of the form that is allowed here, as {example}")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """A number for argparse."""

    def number(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return number


def show(words: Sequence[str], note: str = "") -> None:
    """A command, as it can be pasted into a shell."""
    print(shlex.join(words) + (f"  # {note}" if note else ""), flush=True)


def call(words: Sequence[str], stdin: str | None = None) -> str:
    """Run a command and give what it printed. Raises Mistake with its last words if it fails."""
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Mistake(f"{words[0]} is not installed here; install it, or use --dry-run") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise Mistake(f"{shlex.join(words)}: failed with {done.returncode}: {said[-1]}")
    return done.stdout
