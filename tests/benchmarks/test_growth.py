import pytest

from benchmarks import growth
from benchmarks.growth import PARTS, Timed, exponent, growth_table


def timed(power, sizes=(10, 100, 1000)):
    return [Timed(part="part", of="rows", size=size, seconds=3e-4 * size**power) for size in sizes]


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_is_that_of_a_power(power):
    assert exponent(timed(power)) == pytest.approx(power)


def test_a_part_that_grows_too_fast_is_an_exit_code(monkeypatch, capsys):
    for power, code in ((1.0, 0), (1.3, 1)):
        monkeypatch.setattr(growth, "PARTS", {"part": lambda _, power=power: iter(timed(power))})
        assert growth.main(["--parts", "part"]) == code
        assert f"| {power:.2f} |" in capsys.readouterr().out


def test_what_every_size_costs_hides_no_growth(monkeypatch):
    found = [
        Timed(part="part", of="rows", size=size, seconds=1 + 1e-6 * size**2)
        for size in (10, 100, 1000, 10_000)
    ]
    assert exponent(found) < 1.1
    monkeypatch.setattr(growth, "PARTS", {"part": lambda _: iter(found)})
    assert growth.main(["--parts", "part"]) == 1


def test_only_a_parts_first_row_has_its_exponent():
    rows = growth_table(timed(2)).splitlines()[2:]
    assert [row.count("2.00") for row in rows] == [2, 0, 0]


@pytest.mark.parametrize("part", ["tasks", "packing", "inspect", "validate", "convert"])
def test_a_part_does_its_work_at_every_size(part, monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "MANY", (10, 20))
    monkeypatch.setattr(growth, "TRAJECTORIES", 40)
    found = list(PARTS[part](tmp_path))
    assert [one.size for one in found] == sorted(one.size for one in found)
    assert all(one.seconds > 0 for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["slots", "report", "learning"])
def test_a_part_that_computes_does_its_work_at_every_size(part, monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "MANY", (10, 20))
    monkeypatch.setattr(growth, "SLOTS", (1, 2))
    monkeypatch.setattr(growth, "CONTEXTS", (256, 512))
    assert len(list(PARTS[part](tmp_path))) == 2
