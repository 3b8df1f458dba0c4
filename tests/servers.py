"""Servers on the loopback address: start them, wait for them, and end them with all their processes."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import miniature

SECONDS = 600
"""Longest wait for an answer; a machine with other work takes its time to import PyTorch and MLflow."""


@contextmanager
def serving(command: Sequence[str], url: str, folder: Path, **extra: str) -> Iterator[None]:
    """Run a command in a folder, as `miniature.run` does, and wait for its first answer at `url`."""
    log = folder / "server.log"
    with log.open("a") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**miniature.environment(), **extra},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + SECONDS
        while not answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def mlflow_server(database: str, folder: Path, port: int) -> tuple[list[str], str]:
    """The command of an MLflow server, as docs/teams.md starts it, and its address."""
    where = ("--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts"))
    command = ["mlflow", "server", *where, "--host", "127.0.0.1", "--port", str(port)]
    return command, f"http://127.0.0.1:{port}/health"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@contextmanager
def s3(bucket: str) -> Iterator[str]:
    """The address of an S3 server with an empty bucket; any key is valid."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **keys).create_bucket(Bucket=bucket)
    try:
        yield address
    finally:
        server.stop()
