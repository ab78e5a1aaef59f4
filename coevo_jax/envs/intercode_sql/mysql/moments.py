"""How MySQL reads dates and times from texts and numbers, and how it shifts them."""

import calendar
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import regex

from coevo_jax.envs.intercode_sql.mysql.values import to_decimal, to_integer, to_text

NOW = datetime(2023, 6, 26, 12, 0, 0)
"""What every clock shows, so that the same queries always give the same rows."""

Parts = tuple[int, int, int, int, int, int, int]
APART = regex.compile(
    r"\s*(\d{1,4})[^\w\s](\d{1,2})[^\w\s](\d{1,2})(?:[T\s]+(\d{1,2})(?:[^\w\s](\d{1,2})(?:[^\w\s](\d{1,2})(?:\.(\d{0,6})\d*)?)?)?)?"
)
TOGETHER = regex.compile(r"\s*(\d{14}|\d{12}|\d{5,8})(?!\d)(?:\.(\d{0,6}))?")
CLOCK = regex.compile(r"\s*(-?)(?:(\d+)\s+)?(\d{1,3}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{0,6})\d*)?)?")
MONTHS = {"month": 1, "quarter": 3, "year": 12, "year_month": 1}
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
COMPOUND = {
    "second_microsecond": ("second", "microsecond"),
    "minute_microsecond": ("minute", "second", "microsecond"),
    "minute_second": ("minute", "second"),
    "hour_microsecond": ("hour", "minute", "second", "microsecond"),
    "hour_second": ("hour", "minute", "second"),
    "hour_minute": ("hour", "minute"),
    "day_microsecond": ("day", "hour", "minute", "second", "microsecond"),
    "day_second": ("day", "hour", "minute", "second"),
    "day_minute": ("day", "hour", "minute"),
    "day_hour": ("day", "hour"),
}


def parts_of(value: Any) -> Parts | None:
    """Year, month, day and time of a value; months and days may be 0. None where it names no date."""
    if isinstance(value, datetime):
        return (*value.timetuple()[:6], value.microsecond)  # pyright: ignore[reportReturnType]
    if isinstance(value, date):
        return (value.year, value.month, value.day, 0, 0, 0, 0)
    if isinstance(value, timedelta):
        return parts_of(datetime.combine(NOW.date(), datetime.min.time()) + value)
    if isinstance(value, int | float | Decimal):
        return _parts_of_number(value)
    return None if value is None else _parts_of_text(to_text(value) or "")


def _parts_of_text(text: str) -> Parts | None:
    found = APART.match(text)
    if found is not None:
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
        if len(found[1]) <= 2:
            year += 2000 if year < 70 else 1900
        elif len(found[1]) == 3:
            return None
        return _checked(year, month, day, hour, minute, second, int((found[7] or "0").ljust(6, "0")))
    found = TOGETHER.match(text)
    if found is None:
        return None
    digits = found[1]
    if len(digits) == 5:
        digits = digits[:4] + "0" + digits[4:]
    elif len(digits) == 7:
        digits = digits[:6] + "0" + digits[6:]
        digits = ("20" if int(digits[:2]) < 70 else "19") + digits
    if len(digits) in (6, 12):
        digits = ("20" if int(digits[:2]) < 70 else "19") + digits
    digits = digits.ljust(14, "0")
    numbers = [int(digits[:4]), *(int(digits[i : i + 2]) for i in range(4, 14, 2))]
    return _checked(*numbers, int((found[2] or "0").ljust(6, "0")))


def _parts_of_number(value: int | float | Decimal) -> Parts | None:
    whole = int(value)
    micro = int((to_decimal(value) or Decimal(0)) % 1 * 10**6) if whole >= 10**8 else 0
    if whole < 0:
        return None
    if 0 < whole <= 991231:
        whole += 20000000 if whole <= 691231 else 19000000
    elif 0 < whole < 10000101 or whole >= 10**14:
        return None
    elif 99991231 < whole < 10**13:
        if whole < 101000000:
            return None
        whole += 20000000000000 if whole <= 691231235959 else 19000000000000
    if whole < 10**8:
        whole *= 10**6
    clock, day = whole % 10**6, whole // 10**6
    return _checked(
        day // 10**4, day // 100 % 100, day % 100, clock // 10**4, clock // 100 % 100, clock % 100, micro
    )


def _checked(*parts: int) -> Parts | None:
    year, month, day, hour, minute, second, micro = parts
    if month > 12 or day > 31 or hour > 23 or minute > 59 or second > 59:
        return None
    if (
        month
        and day > calendar.monthrange(max(year, 1), month)[1]
        and not (month == 2 and day == 29 and year == 0)
    ):
        return None
    return year, month, day, hour, minute, second, micro


def moment_of(value: Any) -> datetime | None:
    """The moment a value names; None where it names none, or a month or day of 0."""
    if isinstance(value, datetime):
        return value
    parts = parts_of(value)
    if parts is None or not (parts[0] and parts[1] and parts[2]):
        return None
    return datetime(*parts)


def has_time(value: Any) -> bool:
    """Whether a value names a time of the day too."""
    if isinstance(value, datetime):
        return True
    if isinstance(value, date):
        return False
    text = to_text(value) or ""
    return ":" in text or len(text) >= 12


def time_of(value: Any) -> timedelta | None:
    """The time of a day, or the span, that a value names."""
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, datetime):
        return value - datetime.combine(value.date(), datetime.min.time())
    if isinstance(value, date):
        return timedelta(0)
    text = to_text(value) or ""
    if APART.match(text) and (moment := moment_of(text)) is not None and ("-" in text[1:] or "/" in text):
        return time_of(moment)
    if found := CLOCK.match(text):
        span = timedelta(
            days=int(found[2] or 0),
            hours=int(found[3]),
            minutes=int(found[4]),
            seconds=int(found[5] or 0),
            microseconds=int((found[6] or "0").ljust(6, "0")),
        )
        if int(found[4]) > 59 or int(found[5] or 0) > 59:
            return None
        return -span if found[1] else span
    if not regex.match(r"\s*-?\d", text):
        return None
    number = to_integer(text) or 0
    if abs(number) >= 10**9:
        return time_of(moment_of(text))
    if abs(number) // 100 % 100 > 59 or abs(number) % 100 > 59:
        return None
    span = timedelta(hours=abs(number) // 10000, minutes=abs(number) // 100 % 100, seconds=abs(number) % 100)
    return -span if number < 0 else span


def shifted(moment: datetime, count: Any, unit: str, sign: int) -> datetime | None:
    """A moment so many units later; None beyond the year 9999."""
    try:
        if unit in MONTHS:
            amount = sign * (
                _year_months(count) if unit == "year_month" else (to_integer(count) or 0) * MONTHS[unit]
            )
            months = moment.year * 12 + moment.month - 1 + amount
            year, month = months // 12, months % 12 + 1
            return moment.replace(
                year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1])
            )
        return moment + sign * span_of(count, unit)
    except (OverflowError, ValueError):
        return None


def span_of(count: Any, unit: str) -> timedelta:
    """A count of units that have a fixed length."""
    if unit == "microsecond":
        return timedelta(microseconds=to_integer(count) or 0)
    if unit == "second":
        return timedelta(seconds=float(to_decimal(count) or 0))
    if unit in SECONDS:
        return timedelta(seconds=(to_integer(count) or 0) * SECONDS[unit])
    text = to_text(count) or ""
    numbers = [int(digits) for digits in regex.findall(r"\d+", text)]
    names = COMPOUND[unit]
    padded = [0] * (len(names) - len(numbers)) + numbers[: len(names)]
    total = timedelta()
    for name, amount in zip(names, padded, strict=True):
        total += (
            timedelta(microseconds=amount)
            if name == "microsecond"
            else timedelta(seconds=amount * SECONDS[name])
        )
    return -total if text.lstrip().startswith("-") else total


def _year_months(count: Any) -> int:
    text = to_text(count) or ""
    numbers = [int(digits) for digits in regex.findall(r"\d+", text)]
    total = numbers[0] * 12 + numbers[1] if len(numbers) > 1 else (numbers or [0])[0]
    return -total if text.lstrip().startswith("-") else total


def week_of(day: date, mode: int) -> tuple[int, int]:
    """Year and number of a day's week, by MySQL's modes 0 to 7."""
    monday_first, year_kept, first_day = bool(mode & 1), bool(mode & 2), bool(mode & 4)
    if not mode & 1:
        first_day = not first_day
    year = day.year
    number = day.toordinal()

    def start(of: int) -> int:
        first = date(of, 1, 1).toordinal()
        weekday = (date(of, 1, 1).weekday() + (0 if monday_first else 1)) % 7
        if first_day:
            return first + (7 - weekday) % 7 if weekday else first
        return first - weekday if weekday < 4 else first + 7 - weekday

    if number < start(year):
        if not year_kept:
            return year, 0
        year -= 1
    elif year_kept and number >= start(year + 1):
        year += 1
    return year, (number - start(year)) // 7 + 1
