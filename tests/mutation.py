"""Mutation testing: `python -m tests.mutation [MODULE…]` breaks the code in small ways and runs its tests.

It prints every change that no test finds; docs/testing.md says which changes are left, and why. It works in a
clone of the last commit.
"""

import ast
import difflib
import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from attnfd import discovery

PROJECT = Path(__file__).parents[1]
METHODS = [f"distillers/{name}" for name in discovery.names("distillers") if name != "none"]
SHARED = [
    "distillers/test_kd.py",
    "distillers/test_base.py",
    "distillers/test_attnfd.py",
    "training/test_training.py",
]
TESTS = {
    "evaluation/metrics": ["evaluation/test_metrics.py"],
    "losses": ["test_losses.py", "distillers/test_lad.py", *SHARED],
    "models/taps": ["models/test_taps.py", "models/test_deeplab.py"],
    "models/cbam": ["models/test_cbam.py", "models/test_deeplab.py"],
    "distillers/base": ["distillers/test_base.py", "distillers/test_common.py"],
}
TIMEOUT = 300
FORK = multiprocessing.get_context("fork")


def command(module: str) -> list[str]:
    """The tests of a module; for a method, its own tests and its part of the common ones."""
    name = Path(module).name
    own = TESTS.get(module, [f"distillers/test_{name}.py", "distillers/test_common.py"])
    chosen = [] if module in TESTS else ["-k", f"{name}.py or [{name}] or [{name}- or -{name}]"]
    # First the tests that found a change before.
    return [f"attnfd/{module}.py", *(f"tests/{file}" for file in own), *chosen]


def meaning(code: str) -> str:
    """The syntax tree without the operators in type annotations: no code computes `Tensor & None`."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for part in ast.walk(annotation) if annotation else ():
                if isinstance(part, ast.BinOp):
                    part.op = ast.BitOr()
    return ast.dump(tree)


def mutants(code: str) -> Iterator[str]:
    """The code with one change, for every change that is valid Python and changes the meaning."""
    seen = {meaning(code)}
    for operator in map(get_operator, operator_names()):
        if operator.arguments():
            continue
        for occurrence in itertools.count():
            mutant = mutate_code(code, operator(), occurrence)
            if mutant is None:
                break
            try:
                found = meaning(mutant)
            except SyntaxError:
                continue
            if found not in seen:
                seen.add(found)
                yield mutant


def run(*words: str) -> int:
    """Run pytest in this process, on the current code in the working directory."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("attnfd", "tests"):
            del sys.modules[name]
    return pytest.main(["-n0", *words])


def test(words: list[str]) -> None:
    """Run tests without output, and exit with their status."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(int(run("-x", "--failed-first", *words)))


def passes(words: list[str]) -> bool:
    """Whether the tests pass in a fork of this process, in which the libraries are already imported."""
    child = FORK.Process(target=test, args=(words,))
    child.start()
    child.join(TIMEOUT)
    child.kill()
    child.join()
    return child.exitcode == 0


def survivors(file: Path, words: list[str]) -> tuple[int, list[str]]:
    """The number of mutants of a module, and the changes that no test finds."""
    code = file.read_text(encoding="utf-8")
    assert passes(words), f"the tests of {file.name} do not even pass without a change"
    count, found = 0, []
    for mutant in mutants(code):
        count += 1
        file.write_text(mutant, encoding="utf-8")
        if passes(words):
            diff = difflib.unified_diff(code.splitlines(), mutant.splitlines(), n=0, lineterm="")
            found.append("\n".join(line for line in diff if line[:3] not in ("---", "+++")))
    file.write_text(code, encoding="utf-8")
    return count, found


def main(modules: list[str]) -> None:
    sys.dont_write_bytecode = True  # Two mutants of the same second and length would share a bytecode file.
    with TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), folder], check=True)
        os.chdir(folder)
        sys.path.insert(0, folder)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            run(
                "--collect-only", "tests/evaluation/test_metrics.py", "tests/distillers"
            )  # Imports the libraries.
        gc.freeze()  # Garbage collection in the forks then skips the libraries.
        for module in modules or [*TESTS, *METHODS]:
            start = time.monotonic()
            count, left = survivors(Path(f"attnfd/{module}.py"), command(module))
            minutes = (time.monotonic() - start) / 60
            print(f"{module}: {count - len(left)} of {count} mutants killed in {minutes:.1f} min", flush=True)
            print(*left, sep="\n", flush=True)
        gc.unfreeze()  # Without this, warnings of the libraries would be reported as leaks.


if __name__ == "__main__":
    main(sys.argv[1:])
