from __future__ import annotations

import xml.etree.ElementTree as ET

from bacalhau_p2p.page.charts import HEIGHT, WIDTH, line_chart


def points_of(chart):
    line = next(each for each in ET.fromstring(chart) if each.tag == "polyline")
    return [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]


def test_the_latest_value_is_at_the_right_edge_and_the_largest_at_the_top():
    points = points_of(line_chart([0, 10, 5], "jobs", 5))
    assert points[-1][0] == WIDTH
    assert points[0][0] == WIDTH / 2
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0] <= HEIGHT


def test_a_chart_without_values_or_with_nothing_but_zeros_is_valid():
    assert points_of(line_chart([], "jobs", 5)) == []
    assert len(points_of(line_chart([0.0, 0.0], "jobs", 5))) == 2


def test_the_label_of_a_chart_is_escaped():
    chart = line_chart([1, 2], '"><script>', 5)
    assert ET.fromstring(chart).attrib["aria-label"] == '"><script>'
