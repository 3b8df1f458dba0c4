"""Messages for the user, on the error stream."""

from rich.console import Console

from attnfd.errors import UserError


def say(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def say_error(error: UserError) -> None:
    say(f"[bold red]error:[/] {plain(error)}")


def plain(error: UserError) -> str:
    # An error from a loader's process begins with the traceback of that process.
    return str(error).rpartition(f"{UserError.__name__}: ")[2].strip().replace("[", r"\[")
