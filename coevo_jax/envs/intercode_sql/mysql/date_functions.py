"""MySQL's functions of dates and times."""

import calendar
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import regex

from coevo_jax.envs.intercode_sql.mysql.moments import NOW, Parts, has_time, moment_of, time_of, week_of
from coevo_jax.envs.intercode_sql.mysql.natives import Native, native
from coevo_jax.envs.intercode_sql.mysql.schema import DATE, DATETIME, INT, TEXT, TIME
from coevo_jax.envs.intercode_sql.mysql.values import to_text

EPOCH = datetime(1970, 1, 1)


def day_number(moment: date) -> int:
    """TO_DAYS."""
    return moment.toordinal() + 365


def timestampdiff(unit: str, first: datetime, last: datetime) -> int:
    """Whole units from the first moment to the last."""
    spans = {"microsecond": 1, "second": 10**6, "minute": 6 * 10**7, "hour": 36 * 10**8}
    spans |= {"day": 864 * 10**8, "week": 6048 * 10**8}
    sign = 1 if last >= first else -1
    early, late = min(first, last), max(first, last)
    if unit in spans:
        return sign * ((late - early) // timedelta(microseconds=spans[unit]))
    months = (late.year - early.year) * 12 + late.month - early.month
    months -= (late.day, late.time()) < (early.day, early.time())
    return sign * (months // {"month": 1, "quarter": 3, "year": 12}[unit])


def _ordinal(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


FORMATS: Mapping[str, Callable[[datetime], str]] = {
    "a": lambda m: calendar.day_name[m.weekday()][:3],
    "b": lambda m: calendar.month_name[m.month][:3],
    "c": lambda m: str(m.month),
    "D": lambda m: f"{m.day}{_ordinal(m.day)}",
    "d": lambda m: f"{m.day:02}",
    "e": lambda m: str(m.day),
    "f": lambda m: f"{m.microsecond:06}",
    "H": lambda m: f"{m.hour:02}",
    "h": lambda m: f"{(m.hour - 1) % 12 + 1:02}",
    "I": lambda m: f"{(m.hour - 1) % 12 + 1:02}",
    "i": lambda m: f"{m.minute:02}",
    "j": lambda m: f"{m.timetuple().tm_yday:03}",
    "k": lambda m: str(m.hour),
    "l": lambda m: str((m.hour - 1) % 12 + 1),
    "M": lambda m: calendar.month_name[m.month],
    "m": lambda m: f"{m.month:02}",
    "p": lambda m: "AM" if m.hour < 12 else "PM",
    "r": lambda m: f"{(m.hour - 1) % 12 + 1:02}:{m:%M:%S} {'AM' if m.hour < 12 else 'PM'}",
    "S": lambda m: f"{m.second:02}",
    "s": lambda m: f"{m.second:02}",
    "T": lambda m: m.strftime("%H:%M:%S"),
    "U": lambda m: f"{week_of(m, 0)[1]:02}",
    "u": lambda m: f"{week_of(m, 1)[1]:02}",
    "V": lambda m: f"{week_of(m, 2)[1]:02}",
    "v": lambda m: f"{week_of(m, 3)[1]:02}",
    "W": lambda m: calendar.day_name[m.weekday()],
    "w": lambda m: str(m.isoweekday() % 7),
    "X": lambda m: f"{week_of(m, 2)[0]:04}",
    "x": lambda m: f"{week_of(m, 3)[0]:04}",
    "Y": lambda m: f"{m.year:04}",
    "y": lambda m: f"{m.year % 100:02}",
}
PATTERNS = {
    **dict.fromkeys("deHhIikl", r"\d{1,2}"),
    **dict.fromkeys("cmSsy", r"\d{1,2}"),
    "Y": r"\d{1,4}",
    "j": r"\d{1,3}",
    "f": r"\d{1,6}",
    **dict.fromkeys("Mb", r"[A-Za-z]+"),
    **dict.fromkeys("Wa", r"[A-Za-z]+"),
    "p": r"[AaPp][Mm]",
    "D": r"\d{1,2}[a-z]{2}",
}
WHOLE = {"T": "%H:%i:%s", "r": "%h:%i:%s %p"}


def date_format(moment: datetime, pattern: str) -> str:
    """DATE_FORMAT."""
    return regex.sub(r"%(.)", lambda found: FORMATS.get(found[1], lambda _: found[1])(moment), pattern)


def str_to_date(text: str, pattern: str) -> datetime | date | timedelta | None:
    """STR_TO_DATE; None where the text has another form."""
    for letter, parts in WHOLE.items():
        pattern = pattern.replace(f"%{letter}", parts)
    letters: list[str] = []
    expression = ""
    for found in regex.finditer(r"%(.)|(\s+)|(.)", pattern, regex.DOTALL):
        if found[1] in PATTERNS:
            letters.append(found[1])
            expression += rf"\s*({PATTERNS[found[1]]})"
        else:
            expression += r"\s*" if found[2] else rf"\s*{regex.escape(found[3] or found[1])}"
    match = regex.match(expression, text)
    if match is None:
        return None
    return _assembled(dict(zip(letters, match.groups(), strict=True)))


def _assembled(found: Mapping[str, str]) -> datetime | date | timedelta | None:
    numbers = {letter: int(regex.sub(r"\D", "", text) or 0) for letter, text in found.items()}
    year = numbers.get("Y")
    if year is None and "y" in numbers:
        year = numbers["y"] + (2000 if numbers["y"] < 70 else 1900)
    month = numbers.get("m", numbers.get("c"))
    for letter in "Mb":
        if letter in found:
            names = [name.lower()[: len(found[letter])] for name in calendar.month_name]
            month = names.index(found[letter].lower()) if found[letter].lower() in names[1:] else None
    day = next((numbers[letter] for letter in "deD" if letter in numbers), None)
    hour = next((numbers[letter] for letter in "HhIkl" if letter in numbers), 0)
    if "p" in found:
        hour = hour % 12 + (12 if found["p"].lower() == "pm" else 0)
    micro = int(found["f"].ljust(6, "0")) if "f" in found else 0
    clock = (hour, numbers.get("i", 0), numbers.get("S", numbers.get("s", 0)), micro)
    timed = any(letter in found for letter in "HhIklisSf")
    if year is None and month is None and day is None:
        return (
            timedelta(hours=clock[0], minutes=clock[1], seconds=clock[2], microseconds=micro)
            if timed
            else None
        )
    try:
        moment = datetime(year or 0, month or 0, day or 0, *clock)
    except ValueError:
        return None
    return moment if timed else moment.date()


def _from_unixtime(value: Any, pattern: str | None = None) -> Any:
    if value < 0:
        return None
    moment = EPOCH + timedelta(microseconds=int(Decimal(str(value)) * 10**6))
    return moment if pattern is None else date_format(moment, pattern)


def extract(unit: str, value: Any) -> int | None:
    """EXTRACT(unit FROM value)."""
    if unit in ("hour", "minute", "second", "microsecond") and not (
        isinstance(value, date) or "-" in str(value)[1:]
    ):
        span = time_of(value)
        return None if span is None else _clock_part(unit, span)
    moment = moment_of(value)
    return None if moment is None else EXTRACTS[unit](moment)


def _clock_part(unit: str, span: timedelta) -> int:
    seconds = abs(span) // timedelta(seconds=1)
    parts = {"hour": seconds // 3600, "minute": seconds // 60 % 60, "second": seconds % 60}
    return parts.get(unit, abs(span).microseconds)


EXTRACTS: Mapping[str, Callable[[datetime], int]] = {
    "year": lambda m: m.year,
    "quarter": lambda m: (m.month + 2) // 3,
    "month": lambda m: m.month,
    "week": lambda m: week_of(m, 0)[1],
    "day": lambda m: m.day,
    "hour": lambda m: m.hour,
    "minute": lambda m: m.minute,
    "second": lambda m: m.second,
    "microsecond": lambda m: m.microsecond,
    "year_month": lambda m: m.year * 100 + m.month,
    "day_hour": lambda m: m.day * 100 + m.hour,
    "day_minute": lambda m: (m.day * 100 + m.hour) * 100 + m.minute,
    "day_second": lambda m: int(m.strftime("%d%H%M%S")),
    "hour_minute": lambda m: m.hour * 100 + m.minute,
    "hour_second": lambda m: int(m.strftime("%H%M%S")),
    "minute_second": lambda m: m.minute * 100 + m.second,
}


def _clock(unit: str) -> Native:
    def part(span: timedelta) -> int:
        return _clock_part(unit, span)

    return native("c", part, INT)


def _part(place: int) -> Native:
    def part(parts: Parts) -> int:
        return parts[place]

    return native("p", part, INT)


def _last_day(parts: Parts) -> date | None:
    year, month = parts[:2]
    return date(year, month, calendar.monthrange(year, month)[1]) if year and month else None


def _makedate(year: int, day: int) -> date | None:
    return (
        date(year + (2000 if year < 70 else 1900 if year < 100 else 0), 1, 1) + timedelta(days=day - 1)
        if day > 0
        else None
    )


def _maketime(hour: int, minute: int, second: int) -> timedelta | None:
    if not (0 <= minute < 60 and 0 <= second < 60):
        return None
    span = timedelta(hours=abs(hour), minutes=minute, seconds=second)
    return -span if hour < 0 else span


def _months(period: int) -> int:
    year, month = divmod(period, 100)
    return (year + (2000 if year < 70 else 1900 if year < 100 else 0)) * 12 + month - 1


def _period_add(period: int, count: int) -> int:
    months = _months(period) + count
    return months // 12 * 100 + months % 12 + 1


def _yearweek(moment: datetime, mode: int = 0) -> int:
    year, week = week_of(moment, mode | 2)
    return year * 100 + week


def _add_time(value: Any, span: Any, sign: int) -> Any:
    amount = time_of(span)
    if amount is None:
        return None
    if has_time(value) and (isinstance(value, datetime) or "-" in (to_text(value) or "")[1:]):
        moment = moment_of(value)
        result: Any = None if moment is None else moment + sign * amount
    else:
        clock = time_of(value)
        result = None if clock is None else clock + sign * amount
    return to_text(result) if isinstance(value, str) else result


def _timediff(left: Any, right: Any) -> timedelta | None:
    a, b = (moment_of(side) if "-" in (to_text(side) or "")[1:] else time_of(side) for side in (left, right))
    if a is None or b is None or isinstance(a, datetime) != isinstance(b, datetime):
        return None
    return a - b  # pyright: ignore[reportOperatorIssue, reportReturnType]


def _time_format(span: timedelta, pattern: str) -> str:
    return date_format(datetime(2000, 1, 1) + span % timedelta(days=1), pattern)


NOW_TEXT = native("i?", lambda *_: NOW, DATETIME, aware=True)
FUNCTIONS: Mapping[str, Native] = {
    **dict.fromkeys(
        ("now", "sysdate", "current_timestamp", "localtime", "localtimestamp", "utc_timestamp"), NOW_TEXT
    ),
    **dict.fromkeys(("curdate", "current_date", "utc_date"), native("", NOW.date, DATE)),
    **dict.fromkeys(
        ("curtime", "current_time", "utc_time"),
        native(
            "i?",
            lambda *_: timedelta(hours=NOW.hour, minutes=NOW.minute, seconds=NOW.second),
            TIME,
            aware=True,
        ),
    ),
    "unix_timestamp": native("m?", lambda moment=NOW: int((moment - EPOCH).total_seconds()), INT),
    "from_unixtime": native("nt?", _from_unixtime, DATETIME),
    "from_days": native("i", lambda days: date.fromordinal(days - 365), DATE),
    "date": native("m", lambda moment: moment.date(), DATE),
    "time": native("c", lambda span: span, TIME),
    "timestamp": native("m", lambda moment: moment, DATETIME),
    "year": _part(0),
    "month": _part(1),
    **dict.fromkeys(("day", "dayofmonth"), _part(2)),
    "quarter": native("p", lambda parts: (parts[1] + 2) // 3, INT),
    "hour": _clock("hour"),
    "minute": _clock("minute"),
    "second": _clock("second"),
    "microsecond": _clock("microsecond"),
    "dayofweek": native("m", lambda moment: moment.isoweekday() % 7 + 1, INT),
    "weekday": native("m", lambda moment: moment.weekday(), INT),
    "dayofyear": native("m", lambda moment: moment.timetuple().tm_yday, INT),
    "week": native("mi?", lambda moment, mode=0: week_of(moment, mode)[1], INT),
    "weekofyear": native("m", lambda moment: week_of(moment, 3)[1], INT),
    "yearweek": native("mi?", _yearweek, INT),
    "dayname": native("m", lambda moment: calendar.day_name[moment.weekday()], TEXT),
    "monthname": native("p", lambda parts: calendar.month_name[parts[1]] if parts[1] else None, TEXT),
    "last_day": native("p", _last_day, DATE),
    "to_days": native("m", day_number, INT),
    "to_seconds": native(
        "m",
        lambda m: day_number(m) * 86400 + (m - datetime.combine(m.date(), datetime.min.time())).seconds,
        INT,
    ),
    "datediff": native("mm", lambda end, start: day_number(end) - day_number(start), INT),
    "date_format": native("mt", date_format, TEXT),
    "str_to_date": native("tt", str_to_date, DATETIME),
    "time_format": native("ct", _time_format, TEXT),
    "makedate": native("ii", _makedate, DATE),
    "maketime": native("iii", _maketime, TIME),
    "sec_to_time": native("n", lambda seconds: timedelta(seconds=float(seconds)), TIME),
    "time_to_sec": native("c", lambda span: int(span.total_seconds()), INT),
    "period_add": native("ii", _period_add, INT),
    "period_diff": native("ii", lambda a, b: _months(a) - _months(b), INT),
    "extract": native("tr", extract, INT),
    "timestampdiff": native("tmm", timestampdiff, INT),
    "addtime": native("rr", lambda value, span: _add_time(value, span, 1), TEXT),
    "subtime": native("rr", lambda value, span: _add_time(value, span, -1), TEXT),
    "timediff": native("rr", _timediff, TIME),
}
"""By name."""
