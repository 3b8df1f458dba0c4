"""How many batches an epoch has, and of which images."""


def batches_of(labelled: int, unlabelled: int, batch_size: int, least: int = 2) -> int:
    """Batches of an epoch.

    Without unlabelled images, an epoch has every image once. It leaves out a last batch of fewer images than
    `least`. With unlabelled images, each batch is half labelled and half unlabelled, and an epoch is one pass
    over the part that needs more batches.

    Example:
        >>> batches_of(17, 0, 8), batches_of(16, 464, 8)
        (2, 116)
    """
    if not unlabelled:
        full, rest = divmod(labelled, batch_size)
        return full + (rest >= least)
    ours, theirs = halves(batch_size)
    return max(1, labelled // ours, unlabelled // theirs)


def halves(batch_size: int) -> tuple[int, int]:
    """Labelled and unlabelled images of a batch."""
    return batch_size - batch_size // 2, batch_size // 2
