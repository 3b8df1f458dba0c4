"""What a training costs on this machine: the step, its parts, every method, loader, loop, evaluation.

Networks have random weights, and the images of the step are noise, since the cost does not depend on values.
A ratio is the median of the ratios within each round, see `attnfd.bench.timing`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from attnfd import discovery
from attnfd.bench import timing
from attnfd.bench.loops import time_evaluation, time_loader, time_loop
from attnfd.bench.rows import Row, metric_name, table
from attnfd.bench.setting import Setting
from attnfd.bench.steps import time_kernels, time_methods, time_parts, time_sharing, time_step, time_teacher
from attnfd.tracking import store


def bench(setting: Setting, parts: Sequence[str], *, numbers: Path | None, plot: Path | None) -> None:
    """Measure, show tables, and log the numbers as a run of the experiment `bench`.

    Raises:
        UserError: a part or a name in `setting` does not exist, or the dataset is not prepared.
    """
    for part in parts:
        discovery.one_of(part, tuple(PARTS), "PART")
    with store.errors():
        client, experiment = store.connect("bench", models=False)
    console = Console()
    rows: list[Row] = []
    for part in parts:
        found = PARTS[part](setting)
        console.print(table(found))
        rows += found
    content = {
        "machine": timing.machine(),
        "setting": setting.described,
        "rows": [row._asdict() for row in rows],
    }
    console.print(f"{setting.described}\n{content['machine']}", highlight=False, markup=False)
    from attnfd.bench import bars
    from attnfd.results import style  # Imported late, or a step's memory would include matplotlib.

    parted = {part: list(group) for part, group in groupby(rows, key=lambda row: row.part)}
    figure = bars.ratios({part: {row.name: row.ratio for row in group} for part, group in parted.items()})
    for file in filter(None, (numbers, plot)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if numbers is not None:
        numbers.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        style.save(figure, plot)
    with store.errors(), TemporaryDirectory() as folder:
        style.save(figure, Path(folder, "bench.png"))
        tags = {"stage": "bench", **store.origin()}
        run = client.create_run(
            experiment, tags=tags, run_name=f"{setting.cell.student}-{setting.cell.method}"
        )
        client.log_dict(run.info.run_id, content, "bench.json")
        client.log_artifacts(run.info.run_id, folder)
        for key, value in {**setting.described, **timing.machine()}.items():
            client.log_param(run.info.run_id, key, value)
        for row in rows:
            client.log_metric(run.info.run_id, f"{row.part}/{metric_name(row.name)}", row.ms)
        client.set_terminated(run.info.run_id)


PARTS: Mapping[str, Callable[[Setting], list[Row]]] = {
    "step": time_step,
    "kernels": time_kernels,
    "split": time_parts,
    "methods": time_methods,
    "teacher": time_teacher,
    "sharing": time_sharing,
    "loader": time_loader,
    "loop": time_loop,
    "evaluate": time_evaluation,
}
