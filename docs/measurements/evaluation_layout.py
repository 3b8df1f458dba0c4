"""Times an evaluation with and without channels last.

`python docs/measurements/evaluation_layout.py 9` takes nine rounds.
Prints the median time of an evaluation with channels last relative to one without.
"""

import sys
from functools import partial
from statistics import median

import torch

from attnfd.bench.timing import take_turns
from attnfd.config.params import load_params
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import open_prepared
from attnfd.evaluation.inference import confusion
from attnfd.models.deeplab import DeepLabV3Plus

prepared = open_prepared(load_params(), "shapes")
batches = eval_loader(prepared, "val", 8, device=torch.device("cpu"))
classes = len(prepared.card.classes)
calls = {}
for layout in (torch.contiguous_format, torch.channels_last):
    model = DeepLabV3Plus("resnet18", classes).to(memory_format=layout)
    calls[layout] = partial(confusion, model, batches, classes, device="cpu")
plain, last = take_turns(calls, rounds=int(sys.argv[1]), title="layouts").values()
print(median(ours / other for ours, other in zip(last, plain, strict=True)))
