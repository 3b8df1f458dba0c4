"""Mutation testing: `python -m tests.mutation [MODULE…]` breaks the code in small ways and runs its tests.

Every change that no test notices is printed; docs/testing.md says which are left, and why. Wants
`pip install --constraint constraints.txt '.[mutation]'`. The work is done in a clone of what is committed.
"""

import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from attnfd import discovery
from tests import miniature

METHODS = [f"distillers/{name}" for name in discovery.names("distillers") if name != "none"]
SHARED = ["distillers/test_kd.py", "distillers/test_base.py", "distillers/test_attnfd.py", "test_training.py"]
TESTS = {
    "metrics": ["test_metrics.py"],
    "losses": ["test_losses.py", "distillers/test_lad.py", *SHARED],
    "models/taps": ["models/test_deeplab.py"],
    "models/cbam": ["models/test_cbam.py", "models/test_deeplab.py"],
}
CONFIG = """
[cosmic-ray]
module-path = "attnfd/{module}.py"
timeout = 300.0
excluded-modules = []
test-command = "{command}"
[cosmic-ray.distributor]
name = "local"
"""
SURVIVORS = """
select result.diff from work_results result join mutation_specs mutation using (job_id)
where result.test_outcome = 'SURVIVED' order by mutation.start_pos_row
"""


def command(module: str) -> str:
    """Tests of a module: of a method its own, and its part of those that all methods share."""
    name = Path(module).name
    own = TESTS.get(module, [f"distillers/test_{name}.py", "distillers/test_common.py"])
    tests = " ".join(f"tests/{file}" for file in own)
    chosen = "" if module in TESTS else f" -k {name}"
    return f"python -m pytest -x -n0 -p no:cacheprovider {tests} attnfd/{module}.py{chosen}"


def mutate(module: str, clone: Path) -> tuple[int, list[str]]:
    """Number of mutants of a module, and the changes that survive."""
    config, session = (clone.parent / f"session.{kind}" for kind in ("toml", "sqlite"))
    config.write_text(CONFIG.format(module=module, command=command(module)), encoding="utf-8")
    for words in (("init", "--force"), ("exec",)):
        call = ["cosmic-ray", words[0], str(config), str(session), *words[1:]]
        subprocess.run(call, cwd=clone, env=miniature.environment(), check=True, stdout=subprocess.DEVNULL)
    with sqlite3.connect(session) as found:
        (count,) = found.execute("select count(*) from work_results").fetchone()
        diffs = [diff for (diff,) in found.execute(SURVIVORS)]
    return count, diffs


def main(modules: list[str]) -> None:
    with TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(miniature.PROJECT), str(clone)], check=True)
        for module in modules or [*TESTS, *METHODS]:
            count, survivors = mutate(module, clone)
            print(f"{module}: {count - len(survivors)} of {count} mutants killed", flush=True)
            for diff in survivors:
                lines = [
                    line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
                ]
                print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
