"""MLflow's pages: their server, and the address of the page that a user needs first."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from contextlib import closing, suppress
from itertools import chain
from urllib.parse import urlsplit

from attnfd.errors import UserError
from attnfd.tracking import names, store, views

HOST = "127.0.0.1"
# uvicorn and its libraries print ten lines at their start.
QUIET = {"PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def serve(port: int, *, browse: bool = False) -> None:
    """Replace this process by MLflow's server of the store's pages, on localhost. Print their address.

    If the store is a server, it has its own pages. Then this function only prints their address.

    Args:
        browse: whether to open the page in a browser, too.

    Raises:
        UserError: there is no store yet, it does not answer, or the port is in use.
    """
    uri = store.address()
    if urlsplit(uri).scheme.startswith("http"):
        _announce(f"{store.shown(uri).rstrip('/')}/{page()}", browse)
        return
    if store.is_new():
        found = uri.removeprefix(store.SQLITE)
        raise UserError(f"{found}: not found; nothing is tracked yet, run `dvc repro` first")
    _check_free(port)
    address = f"http://{HOST}:{port}/"
    wait = [sys.executable, "-m", __name__, address, page(), *(["--open"] if browse else [])]
    # Through the environment, because every user of the machine can read a command line.
    environment = {**store.ENVIRONMENT, **os.environ, **QUIET, "MLFLOW_BACKEND_STORE_URI": uri}
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    subprocess.Popen(wait)
    os.execve(sys.executable, command, environment)


def page() -> str:
    """The newest experiment of this project with its scores, or the list of experiments if there is none.

    Raises:
        UserError: the store does not answer.
    """
    with store.errors():
        client = store.connect_to_read("runs")
        project = names.project(local=store.is_local())
        own = [one for one in client.search_experiments() if one.name.rpartition("/")[0] == project]
        newest = client.search_runs(
            [one.experiment_id for one in own],
            "tags.dataset LIKE '%'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if not newest:
            return "#/experiments"
        _, experiment = store.connect(newest[0].data.tags["dataset"])
        return views.page(experiment)


def _check_free(port: int) -> None:
    if _is_free(port):
        return
    free = next(filter(_is_free, chain(range(port + 1, 65536), range(1024, port))))
    raise UserError(f"--port {port}: another program uses it; run `attnfd ui --port {free}`")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True


def _announce(url: str, browse: bool) -> None:
    print(f"MLflow, the best model first: {url}", flush=True)
    if browse:
        webbrowser.open(url)


def _announce_once_up(address: str, page: str, *options: str) -> None:
    """Wait for the server, the parent process, so that this line comes after the server's own output."""
    server = os.getppid()
    while os.getppid() == server:
        with suppress(OSError):
            urllib.request.urlopen(f"{address}health", timeout=5).close()
            _announce(address + page, "--open" in options)
            break
        time.sleep(0.2)


if __name__ == "__main__":
    _announce_once_up(*sys.argv[1:])
