"""What a backbone is for DeepLabV3+: an fx graph with four stages."""

from typing import NamedTuple

from torch import fx


class Stage(NamedTuple):
    """Where a stage of a backbone ends.

    `pre_relu`, `post_relu`: names of its output before and after its ReLU; the same where it has none.
    `bn`: the last BN before `pre_relu`; None where none is. `channels`: C of the output.
    """

    pre_relu: str
    post_relu: str
    bn: str | None
    channels: int


Stages = tuple[Stage, Stage, Stage, Stage]


def activate_in_place(backbone: fx.GraphModule) -> None:
    """Let an activation overwrite what nothing else reads: a feature before its ReLU must last."""
    for node in backbone.graph.nodes:
        module = backbone.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(getattr(module, "inplace", None), bool):
            calls = [other for other in backbone.graph.nodes if other.target == node.target]
            alone = all(len(source.users) == 1 for call in calls for source in call.all_input_nodes)
            module.inplace = alone  # type: ignore[union-attr]
