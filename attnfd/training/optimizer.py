"""The optimizer and the schedule of its learning rate."""

import math


def decay(schedule: str, progress: float) -> float:
    """Factor of the learning rate at 0 ≤ progress ≤ 1: from 1 to 0."""
    if schedule == "poly":
        return (1 - progress) ** 0.9
    return (1 + math.cos(math.pi * progress)) / 2
