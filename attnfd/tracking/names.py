"""Names of a project's experiments and registered models, also on a server that other projects use."""

import re
import subprocess

from attnfd.paths import main_root
from attnfd.runtime import machine


def reports(dataset: str) -> str:
    """Name of the experiment with a dataset's reports and benchmarks; its models have another one."""
    return f"{dataset}-reports"


def experiment(name: str, *, local: bool) -> str:
    """Full name of an experiment: `shapes`, or `wheat/shapes` of the project `wheat` on a server.

    Args:
        local: whether the store is a file of this project; then names do not contain the project.
    """
    return "/".join(part for part in (project(local=local), name) if part)


def registered(dataset: str, *, local: bool) -> str:
    """Name of a dataset's registered model: `attnfd-shapes`, or `wheat.shapes` on a server."""
    name = project(local=local)
    return f"{name}.{dataset}" if name else f"attnfd-{dataset}"


def project(*, local: bool) -> str:
    """`ATTNFD_PROJECT` if set; else, on a server, the project's name in Git, or else its folder's name.

    Git comes first, so that all clones of a project share their runs, even if their folders have other names.
    """
    given = machine.settings().project
    if given is not None or local:
        return given or ""
    return re.sub(r"[^\w-]", "-", _by_git() or main_root().absolute().name)


def _by_git() -> str:
    """The last part of the address of `origin`, and the project's folder in that repository; or nothing."""
    url = _git("config", "--get", "remote.origin.url").rstrip("/")
    name = re.split(r"[/:\\]", url)[-1].removesuffix(".git")
    inside = _git("rev-parse", "--show-prefix").strip("/")
    return "-".join((name, inside) if inside else (name,)) if name else ""


def _git(*words: str) -> str:
    command = ["git", "-C", str(main_root()), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # There is no Git on this machine.
        return ""
