"""Small charts as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 300, 60
"""Units of the picture; the page scales it."""


def line_chart(values: Sequence[float], label: str, most: int) -> Markup:
    """A line of the latest values, at the right edge of a chart with room for `most` of them. `label` says in
    words what it shows, for people who do not see it."""
    top = max(*values, 1e-9) if len(values) > 1 else max([*values, 1e-9])
    step = WIDTH / max(most - 1, 1)
    first = WIDTH - step * (len(values) - 1)
    points = [
        (first + number * step, HEIGHT - 2 - (HEIGHT - 6) * value / top)
        for number, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{first:.1f},{HEIGHT} {line} {WIDTH},{HEIGHT}" if points else ""
    return Markup(
        '<svg class="chart" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        'aria-label="{label}"><polygon points="{area}"/><polyline points="{line}"/></svg>'
    ).format(width=WIDTH, height=HEIGHT, label=label, area=area, line=line)
