"""Axes of charts: what is constant, and shares."""

import re

import pytest

from coevo_jax.report.charts import DotRow, Series, Stretch, dot_chart, line_chart, timeline


def ticks(svg: str, axis: str) -> list[str]:
    return re.findall(rf'<text class="tick {axis}"[^>]*>([^<]*)<', svg)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_share_stands_on_the_whole_axis(value):
    series = [Series(name="a", tone="c1", points=[(0, value), (1, value)])]
    shown = ticks(line_chart("Share", series, x_label="round", percent=True), "y")
    assert shown == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]


def test_a_constant_that_is_no_share_stands_in_the_middle():
    series = [Series(name="a", tone="c1", points=[(0, 4.0), (1, 4.0)])]
    shown = [float(tick) for tick in ticks(line_chart("Turns", series, x_label="round"), "y")]
    assert min(shown) < 4 < max(shown) and max(shown) - min(shown) < 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.97, 1.0), (1.0, 1.0), (0.0, 0.02)])
def test_no_axis_of_shares_leaves_0_to_100(low, high):
    rows = [DotRow(name="a", mean=low, low=low, high=high, values={0: low, 1: high})]
    shown = [
        float(tick.removesuffix(" %").replace("−", "-"))
        for tick in ticks(dot_chart("S", rows, percent=True), "x")
    ]
    assert len(shown) > 1 and min(shown) >= 0 and max(shown) <= 100


def test_an_interval_beyond_all_shares_stays_on_the_axis():
    rows = [DotRow(name="a", mean=0.5, low=-0.4, high=1.3, values={0: 0.3, 1: 0.7})]
    found = ticks(dot_chart("Share", rows, percent=True), "x")
    shown = [float(tick.removesuffix(" %").replace("−", "-")) for tick in found]
    assert min(shown) <= -40 and max(shown) >= 130


def test_agents_differ_by_shape_too():
    series = [
        Series(name=t, tone=t, points=[(0, 1.0), (1, 2.0)], dots=True) for t in ("c1", "c2", "c3", "c4")
    ]
    svg = line_chart("Reward", series, x_label="round")
    corners = [path.count("L") + 1 for path in re.findall(r'<path class="dot \w+" d="M([^Z]*)Z"', svg)]
    assert svg.count("<circle") == 2 and corners == [4, 4, 3, 3, 4, 4]


def test_a_timeline_puts_one_phase_behind_the_other():
    def did(name, seconds):
        return Stretch(name=name, kind="learns", tone="c1", seconds=seconds)

    svg = timeline("Phases", [("a", [did("x", 60), did("y", 120)]), ("b", [did("z", 90)])])
    found = re.findall(r'<rect [^>]* x="([\d.]+)" [^>]*width="([\d.]+)"[^>]*><title>([^<]*)<', svg)
    bars = {title: (float(x), float(width)) for x, width, title in found}
    assert list(bars) == ["a, x: 60.0 s", "a, y: 120.0 s", "b, z: 90.0 s"]
    (x, wide), (y, wider), (z, middle) = bars.values()
    assert z == x and y == pytest.approx(x + wide, abs=0.6)
    assert wider == pytest.approx(2 * wide, abs=1) and middle == pytest.approx(1.5 * wide, abs=1)
    assert "Nothing measured yet." in timeline("Phases", [("a", [])])
