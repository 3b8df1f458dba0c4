"""The files for contributors and their tools agree with what the project runs."""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import attnfd
from tests.miniature import PROJECT

MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
TARGETS = dict(re.findall(r"^([a-z]+):.*##.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE))
TEMPLATES = sorted((PROJECT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def read(name: str) -> Any:
    return YAML(typ="safe").load((PROJECT / name).read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [PROJECT / name for name in listed.split("\0") if name and (PROJECT / name).is_file()]


def test_ci_runs_targets_that_exist() -> None:
    script = (PROJECT / ".ci/run").read_text(encoding="utf-8")
    called = re.findall(r"^make (\w+)$", script, re.MULTILINE)
    assert called == ["lint", "audit", "test"]
    assert set(called) <= TARGETS.keys()
    assert (PROJECT / ".ci/run").stat().st_mode & 0o100
    for module in re.findall(r"python -m ([\w.]+)", script):
        assert (PROJECT / module.replace(".", "/")).with_suffix(".py").is_file()


def test_the_hosted_ci_runs_what_ci_runs() -> None:
    workflow = read(".github/workflows/ci.yml")
    assert {"push", "pull_request"} <= workflow["on"].keys()
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "with" in step]
    oldest = re.search(r'requires-python = ">=(\d+\.\d+)', (PROJECT / "pyproject.toml").read_text())
    assert oldest
    assert python == oldest[1]


@pytest.mark.parametrize("older", [True, False])
def test_make_refuses_an_older_python_in_one_line(older: bool, tmp_path: Path) -> None:
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (PROJECT / "pyproject.toml").read_text())
    assert oldest
    *release, patch = map(int, oldest[1].split("."))
    found = (*release, patch - older)
    name = ".".join(map(str, found))
    for file in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / file).write_bytes((PROJECT / file).read_bytes())
    # It claims to have this version, and it cannot create an environment.
    python = tmp_path / "python"
    claim = f"import sys; sys.version_info = {found}; sys.version = {name!r};"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{claim} $2"\nexit 3\n')
    python.chmod(0o700)
    command = ["make", "env", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode
    assert done.stderr.startswith(f"Python: found {name}; allowed: {oldest[1]} or later;") == older


def test_hooks_call_what_lint_calls() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert " && ".join(hook["entry"] for hook in repository["hooks"]) == TARGETS["lint"].strip()
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False


def test_the_citation_names_this_version_and_both_editions() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == attnfd.__version__
    assert f'license = "{citation["license"]}"' in (PROJECT / "pyproject.toml").read_text()
    page = (PROJECT / "docs/methods.md").read_text(encoding="utf-8")
    for paper in citation["references"]:
        assert {"type", "title", "authors", "year"} <= paper.keys()
        assert paper["title"] in page
        for author in paper["authors"]:
            assert author["family-names"] in page
    assert [paper["year"] for paper in citation["references"]] == [2024, 2026]


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_issue_forms_are_valid(file: Path) -> None:
    form = read(str(file.relative_to(PROJECT)))
    if file.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids) > 1
    assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in form["body"])


def test_there_is_a_form_for_bugs_and_one_for_ideas() -> None:
    assert {file.stem for file in TEMPLATES} == {"bug", "config", "idea"}


def test_every_task_in_a_pull_request_can_be_run() -> None:
    text = (PROJECT / ".github/pull_request_template.md").read_text(encoding="utf-8")
    assert {"lint", "test"} <= set(re.findall(r"`make (\w+)`", text)) <= TARGETS.keys()
    assert all((PROJECT / name).exists() for name in re.findall(r"`(\w+\.(?:md|yaml))`", text))


def test_files_are_as_editors_are_asked_to_write_them() -> None:
    rules = configparser.ConfigParser()
    rules.read_string("[top]\n" + (PROJECT / ".editorconfig").read_text(encoding="utf-8"))
    assert rules["top"]["root"] == "true"
    assert f"line-length = {rules['*.py']['max_line_length']}\n" in (PROJECT / "pyproject.toml").read_text()
    drawn = {".lock", ".log", ".png", ".svg"}  # written by programs
    for file in tracked():
        content = file.read_bytes()
        if file.suffix not in drawn and content:
            assert content.endswith(b"\n"), file
            assert b"\r" not in content, file
            assert not re.search(rb"[ \t]$", content, re.MULTILINE), file
            assert content.decode(rules["*"]["charset"])


def test_the_container_runs_the_readme_s_two_commands() -> None:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    first, second = re.findall(
        r"^make (\w+) ", (PROJECT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )[:2]
    assert f'CMD ["make", "{first}"]' in text
    assert f"attnfd make {second}" in text
    assert {*re.findall(r"RUN make (\w+)", text), first, second} <= TARGETS.keys()
    oldest = read(".github/workflows/ci.yml")["jobs"]["check"]["steps"][1]["with"]["python-version"]
    assert f"FROM python:{oldest}-slim" in text


def test_a_container_gets_nothing_that_git_ignores() -> None:
    kept_out = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = [
        *(PROJECT / ".gitignore").read_text().splitlines(),
        *(PROJECT / ".dvc/.gitignore").read_text().splitlines(),
    ]
    for line in ignored:
        name = line.strip("/*").removesuffix("/*/*")
        if name and not name.startswith("#") and name != ".coverage":
            assert any(name in kept for kept in kept_out), line


def test_what_security_says_is_what_the_tests_look_for() -> None:
    text = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:tests|networks|\.dvc)/[\w./]*)`", text):
        assert (PROJECT / path).exists() or path == ".dvc/config.local", path
    assert "network: module" in text
