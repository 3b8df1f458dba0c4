"""Times a step with and without `torch.compile`.

`python docs/measurements/compiled_step.py --size 257 257 --batch 2 --rounds 7` uses crops of 257×257 pixels.
Prints, for each round, the time of a compiled step relative to a plain one.
"""

from argparse import ArgumentParser

from attnfd.bench.setting import Setting
from attnfd.bench.steps import training_step
from attnfd.bench.timing import take_turns
from attnfd.bench.ways import OURS

parser = ArgumentParser()
parser.add_argument("--size", type=int, nargs=2, required=True)
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--rounds", type=int, required=True)
options = parser.parse_args()
given = Setting.load("shapes", "resnet18", "attnfd", tuple(options.size), options.batch, options.rounds)
calls = {compiled: training_step(given, OURS._replace(compiled=compiled)) for compiled in (False, True)}
seconds = take_turns(calls, rounds=given.rounds, title="compile")
print(sorted(mine / plain for mine, plain in zip(seconds[True], seconds[False], strict=True)))
