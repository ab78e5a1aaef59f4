"""MySQL's functions of texts."""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.collation import collation_key
from coevo_jax.envs.intercode_sql.mysql.natives import Native, native
from coevo_jax.envs.intercode_sql.mysql.schema import BYTES, INT, TEXT, UNSIGNED_INT
from coevo_jax.envs.intercode_sql.mysql.values import (
    EXACT,
    LONGEST_TEXT,
    UNSIGNED,
    to_integer,
    to_text,
)

SOUNDS = {
    letter: digit
    for letters, digit in (("BFPV", "1"), ("CGJKQSXZ", "2"), ("DT", "3"), ("L", "4"), ("MN", "5"), ("R", "6"))
    for letter in letters
}


def upper(text: str) -> str:
    """A text in capitals, letter by letter: ß stays."""
    return text.upper() if text.isascii() else "".join(c.upper() if len(c.upper()) == 1 else c for c in text)


def lower(text: str) -> str:
    """A text in small letters, letter by letter."""
    return text.lower() if text.isascii() else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _left(text: str, count: int) -> str:
    return text[: max(0, count)]


def _right(text: str, count: int) -> str:
    return text[-count:] if count > 0 else ""


def _substring(text: str, start: int, length: int = LONGEST_TEXT) -> str:
    if start == 0 or abs(start) > len(text) or length <= 0:
        return ""
    begin = start - 1 if start > 0 else len(text) + start
    return text[begin : begin + length]


def _substring_index(text: str, mark: str, count: int) -> str:
    if not mark or not count:
        return ""
    parts = text.split(mark)
    return mark.join(parts[:count] if count > 0 else parts[count:])


def _locate(part: str, text: str, start: int = 1) -> int:
    if start < 1 or start > len(text) + 1:
        return 0
    return collation_key(text + ".").find(collation_key(part + ".")[:-1], start - 1) + 1


def trim(text: str, part: str = " ", position: str = "both") -> str:
    """TRIM([position] part FROM text)."""
    while part and position in ("both", "leading") and text.startswith(part):
        text = text.removeprefix(part)
    while part and position in ("both", "trailing") and text.endswith(part):
        text = text.removesuffix(part)
    return text


def _pad(text: str, length: int, fill: str, at_left: bool) -> str | None:
    if length < 0 or length > LONGEST_TEXT:
        return None
    if length <= len(text):
        return text[:length]
    if not fill:
        return ""
    padding = (fill * ((length - len(text)) // len(fill) + 1))[: length - len(text)]
    return padding + text if at_left else text + padding


def _repeat(text: str, count: int) -> str | None:
    return text * max(0, count) if len(text) * max(0, count) <= LONGEST_TEXT else None


def _replace(text: str, old: str, new: str) -> str | None:
    if not old:
        return text
    replaced = text.replace(old, new) if len(text) * max(1, len(new)) <= LONGEST_TEXT**2 else None
    return replaced if replaced is None or len(replaced) <= LONGEST_TEXT else None


def _insert(text: str, start: int, length: int, new: str) -> str:
    if start < 1 or start > len(text):
        return text
    end = len(text) if length < 0 or start + length > len(text) else start - 1 + length
    return text[: start - 1] + new + text[end:]


def _hex(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, int | float | Decimal):
        return f"{(to_integer(value) or 0) % UNSIGNED:X}"
    return (to_text(value) or "").encode().hex().upper()


def _unhex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text.rjust(len(text) + len(text) % 2, "0"))
    except ValueError:
        return None


def convert_base(text: str, source: int, target: int) -> str | None:
    """CONV: digits of one base in another."""
    if not (2 <= abs(source) <= 36 and 2 <= abs(target) <= 36):
        return None
    digits = text.strip().lower()
    negative = digits.startswith("-")
    digits = digits.lstrip("+-")
    valid = ""
    for digit in digits:
        if not digit.isalnum() or not digit.isascii() or int(digit, 36) >= abs(source):
            break
        valid += digit
    number = int(valid or "0", abs(source))
    number = (-number if negative else number) % UNSIGNED
    if target < 0 and number >= UNSIGNED // 2:
        return "-" + _in_base(UNSIGNED - number, -target)
    return _in_base(number, abs(target))


def _in_base(number: int, base: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, base)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return digits or "0"


def _format(value: Any, digits: int, _locale: Any = None) -> str:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    quantum = Decimal(1).scaleb(-max(0, min(30, digits)))
    rounding = ROUND_HALF_UP if not isinstance(value, float) else "ROUND_HALF_EVEN"
    return f"{number.quantize(quantum, rounding=rounding, context=EXACT):,f}"


def _soundex(text: str) -> str:
    letters = [c for c in upper(text) if c.isalpha()]
    if not letters:
        return ""
    code, last = letters[0], SOUNDS.get(letters[0], "")
    for letter in letters[1:]:
        digit = SOUNDS.get(letter, "")
        if letter not in "HW":
            if digit and digit != last:
                code += digit
            last = digit or last
    return code.ljust(4, "0")


def _find_in_set(wanted: str, items: str) -> int:
    keys = [collation_key(item) for item in items.split(",")] if items else []
    return keys.index(collation_key(wanted)) + 1 if collation_key(wanted) in keys else 0


def _strcmp(left: str, right: str) -> int:
    a, b = collation_key(left), collation_key(right)
    return (a > b) - (a < b)


def _elt(place: int | None, *items: Any) -> Any:
    return items[place - 1] if place is not None and 1 <= place <= len(items) else None


def _make_set(bits: int | None, *items: str | None) -> str | None:
    if bits is None:
        return None
    return ",".join(item for place, item in enumerate(items) if bits >> place & 1 and item is not None)


def _export_set(bits: int, on: str, off: str, separator: str = ",", count: int = 64) -> str:
    return separator.join(on if bits >> place & 1 else off for place in range(max(0, min(64, count))))


def _quote(text: str | None) -> str:
    if text is None:
        return "NULL"
    for old, new in (("\\", "\\\\"), ("'", "\\'"), ("\0", "\\0"), ("\x1a", "\\Z")):
        text = text.replace(old, new)
    return f"'{text}'"


def _ord(text: str) -> int:
    return int.from_bytes(text[0].encode(), "big") if text else 0


def _concat_ws(separator: str | None, *items: str | None) -> str | None:
    return None if separator is None else separator.join(item for item in items if item is not None)


def _char(*codes: int | None) -> bytes:
    parts = [code % 2**32 for code in codes if code is not None]
    return b"".join(code.to_bytes(max(1, (code.bit_length() + 7) // 8), "big") for code in parts)


def _sha2(text: str, bits: int) -> str | None:
    name = {0: "sha256", 224: "sha224", 256: "sha256", 384: "sha384", 512: "sha512"}.get(bits)
    return None if name is None else hashlib.new(name, text.encode()).hexdigest()


def json_of(value: Any) -> Any:
    """A value as it stands in JSON."""
    if isinstance(value, Decimal):
        return float(value) if value % 1 else int(value) if value.as_tuple().exponent == 0 else float(value)
    return value if value is None or isinstance(value, int | float | str) else to_text(value)


def write_json(value: Any) -> str:
    """JSON as MySQL writes it."""
    return json.dumps(value, ensure_ascii=False)


def _json_object(*items: Any) -> str:
    pairs = {to_text(key): json_of(value) for key, value in zip(items[::2], items[1::2], strict=True)}
    return write_json(dict(sorted(pairs.items(), key=lambda pair: (len(pair[0] or ""), pair[0] or ""))))


def _inet_aton(text: str) -> int | None:
    parts = text.split(".")
    if not all(part.isdigit() and int(part) < 256 for part in parts) or len(parts) > 4:
        return None
    numbers = [int(part) for part in parts]
    return sum(n << (8 * (3 - i)) for i, n in enumerate(numbers[:-1])) + numbers[-1]


FUNCTIONS: Mapping[str, Native] = {
    "concat": native("t+", lambda *items: "".join(items), TEXT),
    "concat_ws": native("tt+", _concat_ws, TEXT, aware=True),
    **dict.fromkeys(("upper", "ucase"), native("t", upper, TEXT)),
    **dict.fromkeys(("lower", "lcase"), native("t", lower, TEXT)),
    **dict.fromkeys(("char_length", "character_length"), native("t", len, INT)),
    **dict.fromkeys(("length", "octet_length"), native("t", lambda text: len(text.encode()), INT)),
    "bit_length": native("t", lambda text: 8 * len(text.encode()), INT),
    "substring": native("tii?", _substring, TEXT),
    "substring_index": native("tti", _substring_index, TEXT),
    "left": native("ti", _left, TEXT),
    "right": native("ti", _right, TEXT),
    "locate": native("tti?", _locate, INT),
    "instr": native("tt", lambda text, part: _locate(part, text), INT),
    "trim": native("ttt", trim, TEXT),
    "ltrim": native("t", lambda text: text.lstrip(" "), TEXT),
    "rtrim": native("t", lambda text: text.rstrip(" "), TEXT),
    "lpad": native("tit", lambda text, length, fill: _pad(text, length, fill, True), TEXT),
    "rpad": native("tit", lambda text, length, fill: _pad(text, length, fill, False), TEXT),
    "repeat": native("ti", _repeat, TEXT),
    "space": native("i", lambda count: _repeat(" ", count), TEXT),
    "replace": native("ttt", _replace, TEXT),
    "reverse": native("t", lambda text: text[::-1], TEXT),
    "insert": native("tiit", _insert, TEXT),
    "ascii": native("t", lambda text: (text.encode() or b"\0")[0], INT),
    "ord": native("t", _ord, INT),
    "char": native("i+", lambda *codes: _char(*codes).decode("utf-8", "replace"), TEXT, aware=True),
    "char bytes": native("i+", _char, BYTES, aware=True),
    "hex": native("r", _hex, TEXT),
    "unhex": native("t", _unhex, BYTES),
    "conv": native("tii", convert_base, TEXT),
    "bin": native("t", lambda text: convert_base(text, 10, 2), TEXT),
    "oct": native("t", lambda text: convert_base(text, 10, 8), TEXT),
    "format": native("nir?", _format, TEXT),
    "soundex": native("t", _soundex, TEXT),
    "strcmp": native("tt", _strcmp, INT),
    "find_in_set": native("tt", _find_in_set, INT),
    "elt": native("it+", _elt, TEXT, aware=True),
    "make_set": native("it+", _make_set, TEXT, aware=True),
    "export_set": native("ittt?i?", _export_set, TEXT),
    "quote": native("t", _quote, TEXT, aware=True),
    "crc32": native("t", lambda text: zlib.crc32(text.encode()), UNSIGNED_INT),
    "md5": native("t", lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), TEXT),
    **dict.fromkeys(
        ("sha", "sha1"),
        native("t", lambda text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), TEXT),
    ),
    "sha2": native("ti", _sha2, TEXT),
    "to_base64": native("t", lambda text: base64.b64encode(text.encode()).decode(), TEXT),
    "from_base64": native("t", lambda text: base64.b64decode(text), BYTES),
    "json_object": native("r+", _json_object, TEXT, aware=True),
    "inet_aton": native("t", _inet_aton, UNSIGNED_INT),
    "inet_ntoa": native("i", lambda n: ".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0)), TEXT),
}
"""By name; "char bytes" is CHAR without USING."""
