"""Many cells at once: the same result as `dvc repro`, independent failures, and no work done twice."""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from dvc.repo import Repo
from rich.console import Console
from ruamel.yaml import YAML

from attnfd.errors import UserError
from attnfd.sweep import board, changed, plan, walk
from attnfd.sweep.engine import Ray, Task, execute
from attnfd.sweep.graph import BusyError, Graph
from attnfd.sweep.walk import Outcome
from tests import miniature

# Write `a`; halve it twice, in one cell for each half; join the halves.
STAGES = {
    "first": {
        "cmd": "echo first >> ran; cat seed.txt > a",
        "deps": ["seed.txt"],
        "outs": ["a"],
    },
    "half": {
        "matrix": {"part": ["x", "y"]},
        "cmd": "echo half-${item.part} >> ran; mkdir -p half/${item.part}; "
        "grep ${item.part} a > half/${item.part}/out",
        "deps": ["a"],
        "params": ["factor.${item.part}"],
        "outs": ["half/${item.part}"],
    },
    "join": {"cmd": "echo join >> ran; cat half/*/out > joined", "deps": ["half"], "outs": ["joined"]},
}
EVERYTHING = {"first", "half@x", "half@y", "join"}


class Threads:
    """An engine for tests, because starting Ray takes longer than all these commands."""

    def __init__(self, jobs: int, run: Callable[[Task], str] | None = None) -> None:
        self.jobs = jobs
        self.stopped = False
        self._run = run or (lambda task: execute(task, task.environment))
        self._pool = ThreadPoolExecutor(jobs)
        self._names: dict[Future, str] = {}

    def submit(self, name: str, task: Task) -> None:
        self._names[self._pool.submit(self._run, task)] = name

    def wait(self, seconds: float) -> dict[str, str]:
        ended = wait(self._names, seconds, FIRST_COMPLETED).done
        return {self._names.pop(future): future.result() for future in ended}

    def stop(self) -> None:
        self.stopped = True
        self._pool.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with four fast cells as working directory."""
    for key in ("DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(make(tmp_path / "swept"))
    return tmp_path / "swept"


def make(folder: Path) -> Path:
    folder.mkdir()
    yaml = YAML()
    yaml.dump({"stages": STAGES}, folder / "dvc.yaml")
    yaml.dump({"factor": {"x": 1, "y": 1}}, folder / "params.yaml")
    (folder / "seed.txt").write_text("x1\ny2\nx3\n")
    assert miniature.run(folder, "git", "init", "--quiet").returncode == 0
    Repo.init(folder).close()
    return folder


def sweep(engine: Threads | None = None, students_per_teacher: int = 1) -> Outcome:
    return walk.sweep(Graph(), engine or Threads(2), Console(quiet=True), students_per_teacher)


def ran(folder: Path) -> list[str]:
    """The commands that ran since the last call."""
    file = folder / "ran"
    lines = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def run_cache(folder: Path) -> dict[str, bytes]:
    root = folder / ".dvc/cache/runs"
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def objects(folder: Path) -> set[str]:
    root = folder / ".dvc/cache/files"
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


def assert_clean(folder: Path) -> None:
    assert Repo(folder).status() == {}


def test_leaves_what_dvc_repro_leaves(project: Path, tmp_path: Path) -> None:
    outcome = sweep()
    assert set(outcome.ran) == EVERYTHING
    order = ran(project)
    assert order[0] == "first"
    assert order[-1] == "join"
    assert (project / "joined").read_text() == "x1\nx3\ny2\n"

    other = make(tmp_path / "reproduced")
    assert miniature.run(other, "dvc", "repro").returncode == 0
    for name in ("dvc.lock", ".gitignore", "half/.gitignore"):
        assert (project / name).read_text() == (other / name).read_text()
    assert run_cache(project) == run_cache(other)
    assert len(run_cache(project)) == 4
    assert objects(project) == objects(other)

    assert_clean(project)
    assert "up to date" in miniature.run(project, "dvc", "repro").stdout
    assert not ran(project)


def test_only_what_is_stale_runs(project: Path) -> None:
    sweep()
    ran(project)
    miniature.change(project, {"factor": {"x": 2}})
    outcome = sweep()
    # half@x wrote the same content as before, so join is up to date.
    assert (outcome.ran, set(outcome.fresh)) == (["half@x"], EVERYTHING - {"half@x"})
    assert ran(project) == ["half-x"]
    miniature.change(project, {"factor": {"x": 1}})
    assert sweep().ran == []  # From the run-cache.
    assert not ran(project)
    assert_clean(project)


def test_a_failure_stops_its_dependents_and_nothing_else(project: Path) -> None:
    (project / "seed.txt").write_text("x1\n")  # half@y then has no input.
    outcome = sweep()
    assert set(outcome.ran) == {"first", "half@x"}
    assert list(outcome.failed) == ["half@y"]
    assert outcome.skipped == {"join": "half@y"}
    console = Console(width=200, file=io.StringIO())
    walk.show(outcome, console)
    shown = console.file.getvalue()
    assert "failed: half@y: exit status 1" in shown
    assert "skipped: join: depends on half@y" in shown

    ran(project)
    (project / "seed.txt").write_text("x1\ny2\n")
    assert set(sweep().ran) == EVERYTHING
    assert_clean(project)


def test_a_cell_that_writes_no_out_has_failed(project: Path) -> None:
    outcome = sweep(Threads(1, run=lambda task: ""))
    assert list(outcome.failed) == ["first"]
    assert "'a'" in outcome.failed["first"]
    assert set(outcome.skipped) == EVERYTHING - {"first"}


def test_resumes_where_it_was_interrupted(project: Path) -> None:
    def interrupted(task: Task) -> str:
        if task.environment["DVC_STAGE"] == "join":
            raise KeyboardInterrupt
        return execute(task, task.environment)

    engine = Threads(2, run=interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(engine)
    assert engine.stopped
    assert set(ran(project)) == {"first", "half-x", "half-y"}
    assert sweep().ran == ["join"]
    assert ran(project) == ["join"]
    assert_clean(project)


# Students with two seeds. The command fails for the student that params name, like that of attnfd.
CLASS = {
    "distill": {
        "matrix": {"student": ["a", "b", "c"], "seed": [0, 1]},
        "cmd": "python teach.py --student ${item.student} --seed ${item.seed}",
        "params": ["fails"],
        "outs": ["students/${item.student}/${item.seed}"],
    },
    "join": {"cmd": "cat students/*/* > joined", "deps": ["students"], "outs": ["joined"]},
}
TEACH = """
import sys
from pathlib import Path
given = list(zip(sys.argv[1::2], sys.argv[2::2]))
students = [value for key, value in given if key == "--student"]
(seed,) = [value for key, value in given if key == "--seed"]
with open("ran", "a") as ran:
    ran.write("+".join(students) + seed + "\\n")
fails = Path("params.yaml").read_text().split()[1]
for student in students:
    if student != fails:
        folder = Path("students", student)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / seed).write_text(student + seed)
if fails == "all":
    sys.exit(2)
if fails in students:
    print(f"error: 1 of {len(students)} failed")
    sys.exit(3 if len(students) > 1 else 2)
"""


@pytest.fixture
def school(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    folder = make(tmp_path / "school")
    YAML().dump({"stages": CLASS}, folder / "dvc.yaml")
    (folder / "params.yaml").write_text("fails: none\n")
    (folder / "teach.py").write_text(TEACH)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("students", "commands"),
    [(1, ["a0", "b0", "c0", "a1", "b1", "c1"]), (2, ["a+b0", "c0", "a+b1", "c1"]), (9, ["a+b+c0", "a+b+c1"])],
)
def test_students_of_a_seed_share_a_command(students: int, commands: list[str], school: Path) -> None:
    outcome = sweep(Threads(1), students)
    assert len(outcome.ran) == 7
    assert sorted(ran(school)) == sorted(commands)
    assert_clean(school)
    assert "up to date" in miniature.run(school, "dvc", "repro").stdout
    assert (school / "students/b/1").read_text() == "b1"
    assert board.logfile("distill@b-1").exists()


def test_one_of_those_that_share_a_command_fails_alone(school: Path) -> None:
    (school / "params.yaml").write_text("fails: b\n")
    outcome = sweep(Threads(1), 9)
    assert set(outcome.ran) == {"distill@a-0", "distill@c-0", "distill@a-1", "distill@c-1"}
    assert set(outcome.failed) == {"distill@b-0", "distill@b-1"}
    assert outcome.failed["distill@b-0"] == "exit status 3: error: 1 of 3 failed"
    assert set(outcome.skipped) == {"join"}
    (school / "params.yaml").write_text("fails: none\n")
    assert len(sweep(Threads(1), 9).ran) == 7
    assert_clean(school)


def test_nothing_is_recorded_of_a_command_that_was_killed(school: Path) -> None:
    (school / "params.yaml").write_text(
        "fails: all\n"
    )  # Killed after it wrote its outs, which may be incomplete.
    outcome = sweep(Threads(1), 9)
    assert not outcome.ran
    assert len(outcome.failed) == 6


def test_a_log_of_ones_own_is_no_link_to_that_of_others(school: Path) -> None:
    sweep(Threads(1), 9)
    assert board.logfile("distill@b-0").is_symlink()
    (school / "students/b/0").unlink()
    miniature.run(school, "dvc", "gc", "--workspace", "--force")
    (school / "params.yaml").write_text("fails: one\n")
    sweep(Threads(1), 1)
    assert not board.logfile("distill@b-0").is_symlink()


def test_dvc_keeps_off_a_cell_that_runs(project: Path) -> None:
    graph = Graph()
    assert graph.start("first")
    beside = miniature.run(project, "dvc", "repro", "first")
    assert beside.returncode != 0
    assert "is busy" in beside.stderr
    note = r"attnfd .*\(another run, started 20\d\d-.*; wait until it ends, or use `attnfd sweep"
    assert re.search(note, beside.stderr)
    graph.release("first")
    assert miniature.run(project, "dvc", "repro", "first").returncode == 0


@contextmanager
def reproducing(project: Path) -> Iterator[subprocess.Popen]:
    """A running `dvc repro`, in the command of `first`."""
    dvc = YAML().load(project / "dvc.yaml")
    dvc["stages"]["first"]["cmd"] = f"echo first >> ran; sleep {SLOW}; cat seed.txt > a"
    YAML().dump(dvc, project / "dvc.yaml")
    with subprocess.Popen(["dvc", "repro"], cwd=project, env=miniature.environment()) as process:
        while not (project / "ran").exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield process


SLOW = 6
"""Seconds of a command, in which a second run begins."""


def test_beside_dvc_repro_it_is_refused_by_name_and_time(project: Path) -> None:
    minute = r"20\d\d-\d\d-\d\d \d\d:\d\d"
    with reproducing(project) as process:
        wanted = rf"another run is active here: dvc repro \(process {process.pid}, since {minute}\); wait"
        with pytest.raises(BusyError, match=wanted):
            Graph().check_alone()
        with pytest.raises(BusyError, match=wanted):  # like `attnfd plan`
            Graph().changes("first")
        outcome = sweep()
        assert list(outcome.failed) == ["first"]
        assert re.match(wanted, outcome.failed["first"])
        assert "manually" not in outcome.failed["first"]
        assert process.wait() == 0
    Graph().check_alone()
    assert_clean(project)


def test_beside_dvc_repro_it_waits_if_asked(project: Path) -> None:
    console = Console(width=200, file=io.StringIO())
    with reproducing(project) as process:
        outcome = walk.sweep(Graph(), Threads(2), console, wait=True)
        assert process.wait() == 0
    assert not outcome.failed
    assert sorted(ran(project)) == [
        "first",
        "half-x",
        "half-y",
        "join",
    ]  # Each command ran once, in one of the two.
    said = [line for line in console.file.getvalue().splitlines() if "waiting" in line]
    assert re.match(rf"waiting for another run: dvc repro \(process {process.pid}, since ", said[0])
    assert len(said) == len(set(said))
    assert_clean(project)


def test_a_second_sweep_waits_for_the_first(project: Path) -> None:
    first = Graph()
    assert first.start("first")
    code = (
        "import sys; from rich.console import Console; from attnfd.sweep import walk; "
        "from attnfd.sweep.graph import Graph; from tests.sweep.test_sweep import Threads; "
        "sys.argv = ['attnfd', 'sweep', '--wait']; "
        "print(walk.sweep(Graph(), Threads(1), Console(width=400), wait=True))"
    )
    environment = {**miniature.environment(), "PYTHONPATH": str(miniature.PROJECT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=project, env=environment, stdout=subprocess.PIPE, text=True
    ) as second:
        assert second.stdout is not None
        said = next(line for line in second.stdout if "waiting for another run" in line)
        (project / "a").write_text((project / "seed.txt").read_text())
        before = ran(project)
        first.record("first")
        rest = second.stdout.read()
    assert f"(process {os.getpid()}, since " in said
    assert not before
    assert second.returncode == 0
    assert "failed={}" in rest
    assert sorted(ran(project)) == ["half-x", "half-y", "join"]
    assert_clean(project)


def test_why_a_cell_is_stale(project: Path) -> None:
    assert Graph().changes("first") == ["never ran"]
    sweep()
    graph = Graph()
    assert [graph.changes(name) for name in graph.jobs] == [[], [], [], []]
    miniature.change(project, {"factor": {"x": 2}})
    (project / "seed.txt").write_text("x\ny\n")
    (project / "joined").unlink()
    graph = Graph()
    assert graph.changes("first") == ["seed.txt"]
    assert graph.changes("half@x") == ["factor.x"]
    assert graph.changes("half@y") == []
    assert graph.changes("join") == ["joined (deleted)"]


def test_only_what_ran_before_with_the_same_params_is_in_the_run_cache(project: Path) -> None:
    sweep()
    miniature.change(project, {"factor": {"x": 2}})
    graph = Graph()
    assert not graph.is_cached("half@x")
    assert plan.reasons(graph) == {"half@x": "factor.x", "join": "after half@x"}
    assert graph.changes("half@x") == ["factor.x"]  # Looking it up did not change anything.
    assert sweep(Threads(2)).ran == ["half@x"]

    miniature.change(project, {"factor": {"x": 1}})
    graph = Graph()
    assert plan.reasons(graph) == {"half@x": plan.CACHED, "join": "after half@x"}
    assert not graph.start("half@x")


def test_other_params_are_looked_at_without_writing_them(project: Path) -> None:
    sweep()
    before = (project / "params.yaml").read_bytes(), (project / "dvc.lock").read_bytes()
    text = before[0].decode()
    assert plan.reasons(Graph(changed.change(text, ["factor.x=1"]))) == {}
    graph = Graph(changed.change(text, ["factor.x=7"]))
    assert plan.reasons(graph) == {"half@x": "factor.x", "join": "after half@x"}
    both = Graph(changed.change(text, ["factor.x=7", "factor.y=[1, 2]"]))
    assert set(plan.reasons(both)) == {"half@x", "half@y", "join"}
    assert ((project / "params.yaml").read_bytes(), (project / "dvc.lock").read_bytes()) == before
    assert plan.reasons(Graph()) == {}

    # A cell with such a value is in the run-cache.
    miniature.change(project, {"factor": {"x": 7}})
    sweep()
    miniature.change(project, {"factor": {"x": 1}})
    sweep()
    graph = Graph(changed.change(text, ["factor.x=7"]))
    assert plan.reasons(graph)["half@x"] == plan.CACHED


def test_a_dep_that_is_missing_is_in_no_run_cache(project: Path) -> None:
    sweep()
    (project / "seed.txt").unlink()
    graph = Graph()
    assert not graph.is_cached("first")
    assert plan.reasons(graph)["first"] == "seed.txt (deleted)"


def test_a_log_is_what_a_terminal_would_show(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = r"printf 'one\n 10%%\r\033[2K 20%%\r\033[2Kdone\n'; echo >&2 two; exit 3"
    task = Task(command=command, folder=tmp_path, environment={}, log=log)
    assert execute(task, {}) == "exit status 3: two"
    assert log.read_text() == "one\ndone\ntwo\n"


def test_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dvc\.yaml: not found"):
        Graph()


@pytest.mark.slow
def test_the_miniature_on_ray(tmp_path: Path) -> None:
    folder = miniature.clone(tmp_path)
    done = miniature.run(folder, "python", "-m", "attnfd", "sweep", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 cells ran" in done.stdout
    assert_clean(folder)
    lock = (folder / "dvc.lock").read_bytes()
    again = miniature.run(folder, "dvc", "repro")
    assert "up to date" in again.stdout
    assert (folder / "dvc.lock").read_bytes() == lock
    subprocess.run(["git", "diff", "--exit-code"], cwd=folder, check=True)


@pytest.mark.slow
def test_students_beside_one_teacher_leave_what_dvc_repro_leaves(tmp_path: Path) -> None:
    apart, beside = (miniature.clone(tmp_path / name) for name in ("apart", "beside"))
    for folder, command in (
        (apart, ["dvc", "repro"]),
        (beside, ["python", "-m", "attnfd", "sweep", "--jobs", "1", "--students-per-teacher", "4"]),
    ):
        miniature.change(
            folder, {"run": {"methods": ["none", "cirkd", "attnfd"], "ablate": {"variants": ["b", "e"]}}}
        )
        # As many threads as Ray gives a single job: another number would change the last digits.
        done = miniature.run(folder, *command, OMP_NUM_THREADS=str(os.cpu_count()))
        assert done.returncode == 0, done.stdout + done.stderr
    assert (apart / "dvc.lock").read_bytes() == (beside / "dvc.lock").read_bytes()
    logs = beside / ".attnfd/sweep"
    assert (logs / "distill@shapes-mobilenetv2-cirkd-0.log").is_symlink()
    assert (logs / "ablate@shapes-mobilenetv2-e-0.log").is_symlink()


@pytest.mark.slow
def test_shares_of_gpus_on_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray believes that each node has a GPU and assigns shares of it; no task uses it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=1)
    try:
        for share, jobs in ((0.5, 4), (None, 2)):
            assert run_tasks(cluster.address, share, tmp_path / str(share), tasks=6) == jobs
    finally:
        cluster.shutdown()


def run_tasks(address: str, share: float | None, folder: Path, *, tasks: int) -> int:
    """The most tasks that ran at the same time; the engine may run any number, each with a share of a GPU."""
    engine = Ray(jobs=None, gpus=share, address=address)
    command = "echo + $CUDA_VISIBLE_DEVICES >> ../order; sleep 3; echo - >> ../order"
    for number in range(tasks):
        (folder / str(number)).mkdir(parents=True)
        engine.submit(
            str(number),
            Task(command=command, folder=folder / str(number), environment={}, log=folder / "log"),
        )
    ended: dict[str, str] = {}
    while len(ended) < tasks:
        ended |= engine.wait(60)
    jobs = engine.jobs
    engine.stop()
    assert set(ended.values()) == {""}
    marks = (folder / "order").read_text().splitlines()
    assert set(marks) == {"+ 0", "-"}
    running = [sum(1 if mark[0] == "+" else -1 for mark in marks[: end + 1]) for end in range(len(marks))]
    assert max(running) == jobs
    return jobs
