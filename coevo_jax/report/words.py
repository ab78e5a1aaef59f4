"""How numbers are written in tables and reports."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def bounds(ci: list[float] | tuple[float | None, float | None] | None, digits: int = 3) -> str:
    """An interval as "[low, high]"; empty where there is none."""
    if ci is None or ci[0] is None or ci[1] is None:
        return ""
    return f"[{ci[0]:.{digits}f}, {ci[1]:.{digits}f}]".replace("-", "−")


def duration(seconds: float) -> str:
    """Wall time for people: 4.2 s, 3 min 07 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: int | None) -> str:
    """Bytes for people."""
    if size is None:
        return "not told by this platform"
    value, unit = float(size), "B"
    for bigger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.1f} {unit}" if unit != "B" else f"{size} B"


def count(value: float | None) -> str:
    """A count or large number with thin separators: 12 345."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def pull_ratio(preference: float, sft: float) -> str:
    """Preferences to imitation, the weaker one as 1: "1 : 20", "2.5 : 1"."""
    least = min(preference, sft)
    if least > 0:
        return f"{preference / least:.3g} : {sft / least:.3g}"
    return "nothing pulls" if preference == sft else "imitation alone" if sft else "preferences alone"


BETWEEN = "Between phases"  # building what plays and learns, commits, and results


def round_name(number: int) -> str:
    """A round in words; round 0 is the warm start."""
    return "Warm start" if number == 0 else f"Round {number}"
