"""Looks for known security holes in the packages of `constraints.txt`: `python -m tests.audit`.

Fails if it finds one. If the advisories are not available, as without a network, it says so and passes.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main() -> int:
    command = [
        "pip-audit",
        "--requirement",
        str(CONSTRAINTS),
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
    ]
    done = subprocess.run(
        [*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(f"not audited: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return 0
    audited = [package for package in packages if "vulns" in package]
    print(f"{len(audited)} of {len(packages)} packages audited")
    holes = [(package, hole) for package in audited for hole in package["vulns"]]
    for package, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "no release yet"
        print(f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed}")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
