#!/usr/bin/env bash
# ruamel.yaml 0.19.1 writes the character U+0085 (NEL, a line break of Unicode) so that neither it nor PyYAML reads the
# same text back; and it reads dates as dates although YAML 1.2's core schema has none.
#
# Behaviour seen: the text "\x85" is dumped raw between single quotes and loads as a space, in both readers;
# `day: 2026-01-31` loads as datetime.date.
#
# Why it matters here: a resolved config must be read back unchanged, whatever text is in it. So text with characters
# that cannot be printed is written double-quoted, with escapes, and dates are kept as text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ruamel.yaml==0.19.1 PyYAML==6.0.3
"$folder/venv/bin/python" - <<'CHECK'
import datetime
import io

import ruamel.yaml
import yaml

both = ruamel.yaml.YAML(typ="safe", pure=True)
out = io.StringIO()
both.dump({"text": "\x85"}, out)
ours, theirs = both.load(out.getvalue()), yaml.safe_load(out.getvalue())
print(ruamel.yaml.__version__, repr(out.getvalue()), ours, theirs)
assert ours != {"text": "\x85"} and theirs != {"text": "\x85"}, "it is written so that it reads back now"
assert both.load("day: 2026-01-31") == {"day": datetime.date(2026, 1, 31)}
CHECK
