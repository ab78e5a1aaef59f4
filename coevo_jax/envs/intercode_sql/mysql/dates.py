"""MySQL's functions for dates and times, which are texts as MySQL writes them: 2020-01-31 23:59:59."""

import calendar
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

NOW = datetime(2023, 6, 26, 12, 0, 0)
"""What every clock shows, so that the same queries always give the same rows."""

STAMP = re.compile(
    r"\s*(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,6}))?)?)?"
)
UNITS = {
    "MICROSECOND": timedelta(microseconds=1),
    "SECOND": timedelta(seconds=1),
    "MINUTE": timedelta(minutes=1),
    "HOUR": timedelta(hours=1),
    "DAY": timedelta(days=1),
    "WEEK": timedelta(weeks=1),
}
MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}


def moment_of(value: Any) -> datetime:
    """The moment a value names. Raises ValueError where it names none."""
    text = str(value)
    if re.fullmatch(r"\d{8}(\d{6})?", text):
        return datetime.strptime(text, "%Y%m%d%H%M%S"[: 6 if len(text) == 8 else None])
    found = STAMP.match(text)
    if found is None:
        raise ValueError(f"no date: {text[:40]!r}")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    return datetime(year, month, day, hour, minute, second, int((found[7] or "").ljust(6, "0")))


def has_time(value: Any) -> bool:
    """Whether a value names a time of the day too."""
    return ":" in str(value) or len(str(value)) == 14


def write_moment(moment: datetime) -> str:
    """A moment as MySQL writes it."""
    return moment.strftime("%Y-%m-%d %H:%M:%S" + (".%f" if moment.microsecond else ""))


def _add(value: Any, count: Any, unit: str, sign: int) -> str:
    moment, amount = moment_of(value), sign * int(float(count))
    if unit in MONTHS:
        months = moment.year * 12 + moment.month - 1 + amount * MONTHS[unit]
        year, month = months // 12, months % 12 + 1
        moment = moment.replace(
            year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1])
        )
    elif unit in UNITS:
        moment += amount * UNITS[unit]
    else:
        raise ValueError(f"no unit: {unit}")
    timed = has_time(value) or unit in ("HOUR", "MINUTE", "SECOND", "MICROSECOND")
    return write_moment(moment) if timed else moment.strftime("%Y-%m-%d")


def _days(value: Any) -> int:
    return moment_of(value).date().toordinal() + 365


def _week(value: Any, mode: Any = 0) -> int:
    day, first = moment_of(value).date(), int(mode)
    if first == 0:
        return int(day.strftime("%U"))
    if first == 3:
        return day.isocalendar()[1]
    if first == 1:
        return int(day.strftime("%W")) + (date(day.year, 1, 1).weekday() in (1, 2, 3))
    raise ValueError(f"no week mode: {first}")


def _timestampdiff(unit: str, start: Any, end: Any) -> int:
    first, last = moment_of(start), moment_of(end)
    if unit in UNITS:
        return int((last - first) / UNITS[unit])
    sign = 1 if last >= first else -1
    early, late = min(first, last), max(first, last)
    months = (late.year - early.year) * 12 + late.month - early.month
    months -= (late.day, late.time()) < (early.day, early.time())
    return sign * (months // MONTHS[unit])


FORMATS: Mapping[str, Callable[[datetime], str]] = {
    "a": lambda m: m.strftime("%a"),
    "b": lambda m: m.strftime("%b"),
    "c": lambda m: str(m.month),
    "D": lambda m: f"{m.day}{_ordinal(m.day)}",
    "d": lambda m: f"{m.day:02}",
    "e": lambda m: str(m.day),
    "f": lambda m: f"{m.microsecond:06}",
    "H": lambda m: f"{m.hour:02}",
    "h": lambda m: f"{(m.hour - 1) % 12 + 1:02}",
    "I": lambda m: f"{(m.hour - 1) % 12 + 1:02}",
    "i": lambda m: f"{m.minute:02}",
    "j": lambda m: m.strftime("%j"),
    "k": lambda m: str(m.hour),
    "l": lambda m: str((m.hour - 1) % 12 + 1),
    "M": lambda m: m.strftime("%B"),
    "m": lambda m: f"{m.month:02}",
    "p": lambda m: "AM" if m.hour < 12 else "PM",
    "r": lambda m: m.strftime("%I:%M:%S %p"),
    "S": lambda m: f"{m.second:02}",
    "s": lambda m: f"{m.second:02}",
    "T": lambda m: m.strftime("%H:%M:%S"),
    "U": lambda m: m.strftime("%U"),
    "u": lambda m: f"{_week(m, 1):02}",
    "v": lambda m: f"{_week(m, 3):02}",
    "W": lambda m: m.strftime("%A"),
    "w": lambda m: m.strftime("%w"),
    "Y": lambda m: f"{m.year:04}",
    "y": lambda m: f"{m.year % 100:02}",
}
PARSED = {
    **{letter: f"%{letter}" for letter in "abdfHIjpTYymM"},
    **{"c": "%m", "e": "%d", "h": "%I", "i": "%M", "k": "%H", "l": "%I", "M": "%B", "r": "%I:%M:%S %p"},
    **{"S": "%S", "s": "%S", "T": "%H:%M:%S", "W": "%A"},
}


def _ordinal(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _date_format(value: Any, pattern: Any) -> str:
    moment = moment_of(value)
    return re.sub(r"%(.)", lambda found: FORMATS.get(found[1], lambda _: found[1])(moment), str(pattern))


def _str_to_date(value: Any, pattern: Any) -> str:
    moment = datetime.strptime(
        str(value), re.sub(r"%(.)", lambda found: PARSED.get(found[1], found[1]), str(pattern))
    )
    timed = re.search(r"%[HhIiklrSsTfp]", str(pattern))
    return write_moment(moment) if timed else moment.strftime("%Y-%m-%d")


def _from_unixtime(value: Any, pattern: Any = None) -> str:
    moment = datetime(1970, 1, 1) + timedelta(seconds=float(value))
    return write_moment(moment) if pattern is None else _date_format(moment, pattern)


EXTRACTS: Mapping[str, Callable[[datetime], int]] = {
    "YEAR": lambda m: m.year,
    "QUARTER": lambda m: (m.month + 2) // 3,
    "MONTH": lambda m: m.month,
    "DAY": lambda m: m.day,
    "HOUR": lambda m: m.hour,
    "MINUTE": lambda m: m.minute,
    "SECOND": lambda m: m.second,
    "MICROSECOND": lambda m: m.microsecond,
    "WEEK": lambda m: _week(m),
    "YEAR_MONTH": lambda m: m.year * 100 + m.month,
}


def _part(name: str) -> Callable[[Any], int]:
    return lambda value: EXTRACTS[name](moment_of(value))


def _last_day(value: Any) -> str:
    moment = moment_of(value)
    return f"{moment:%Y-%m-}{calendar.monthrange(moment.year, moment.month)[1]:02}"


def _moment_number(value: Any) -> int:
    return int(moment_of(value).strftime("%Y%m%d%H%M%S" if has_time(value) else "%Y%m%d"))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(
        ("NOW", "SYSDATE", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "UTC_TIMESTAMP"),
        lambda *_: write_moment(NOW),
    ),
    **dict.fromkeys(("CURDATE", "CURRENT_DATE", "UTC_DATE"), lambda: NOW.strftime("%Y-%m-%d")),
    **dict.fromkeys(("CURTIME", "CURRENT_TIME", "UTC_TIME"), lambda *_: NOW.strftime("%H:%M:%S")),
    "UNIX_TIMESTAMP": lambda value=NOW: int((moment_of(value) - datetime(1970, 1, 1)).total_seconds()),
    "FROM_UNIXTIME": _from_unixtime,
    "DATE": lambda value: moment_of(value).strftime("%Y-%m-%d"),
    "TIME": lambda value: moment_of(value).strftime("%H:%M:%S"),
    "TIMESTAMP": lambda value: write_moment(moment_of(value)),
    **{
        name: _part(name)
        for name in ("YEAR", "QUARTER", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "MICROSECOND")
    },
    "DAYOFMONTH": _part("DAY"),
    "DAYOFWEEK": lambda value: moment_of(value).isoweekday() % 7 + 1,
    "WEEKDAY": lambda value: moment_of(value).weekday(),
    "DAYOFYEAR": lambda value: moment_of(value).timetuple().tm_yday,
    "WEEK": _week,
    "WEEKOFYEAR": lambda value: _week(value, 3),
    "DAYNAME": lambda value: moment_of(value).strftime("%A"),
    "MONTHNAME": lambda value: moment_of(value).strftime("%B"),
    "LAST_DAY": _last_day,
    "TO_DAYS": _days,
    "DATEDIFF": lambda end, start: _days(end) - _days(start),
    "DATE_FORMAT": _date_format,
    "STR_TO_DATE": _str_to_date,
    "DATE_SHIFT": _add,
    "MOMENT_NUMBER": lambda value: int(
        moment_of(value).strftime("%Y%m%d%H%M%S" if has_time(value) else "%Y%m%d")
    ),
    "EXTRACT": lambda unit, value: EXTRACTS[unit](moment_of(value)),
    "TIMESTAMPDIFF": _timestampdiff,
}
"""By MySQL's names; DATE_SHIFT(value, count, unit, sign) is what DATE_ADD, DATE_SUB and INTERVAL turn into,
MOMENT_NUMBER(value) what SUM and AVG add up."""
