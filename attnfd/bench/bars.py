"""Bar charts of timings."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from attnfd.results import style


@style.styled
def ratios(parts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars by name, a panel per part; the other bars of a part are relative to its first one."""
    heights = [len(part) + 1.5 for part in parts.values()]
    figure = Figure((style.WIDTH, 0.26 * sum(heights)))
    panels = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, part) in zip(panels, parts.items(), strict=True):
        bars = axes.barh(list(part), list(part.values()), color=style.OTHERS[0])
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in part.values()], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(f"{title}, × {next(iter(part))}")
    return figure
