"""The stages of a DeepLabV3+ backbone, which is an fx graph with four stages."""

from typing import NamedTuple

from torch import fx


class Stage(NamedTuple):
    """The end of a stage of a backbone.

    `pre_relu`, `post_relu`: names of its output before and after its ReLU; the same if it has no ReLU.
    `bn`: the last BN before `pre_relu`; None if there is none. `channels`: C of the output.
    """

    pre_relu: str
    post_relu: str
    bn: str | None
    channels: int


Stages = tuple[Stage, Stage, Stage, Stage]


def activate_in_place(backbone: fx.GraphModule) -> None:
    """Let an activation overwrite its input if no other node reads it: taps need features before the ReLU."""
    for node in backbone.graph.nodes:
        module = backbone.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(getattr(module, "inplace", None), bool):
            calls = [other for other in backbone.graph.nodes if other.target == node.target]
            alone = all(len(source.users) == 1 for call in calls for source in call.all_input_nodes)
            module.inplace = alone  # type: ignore[union-attr]
