"""The frame of a page: one HTML file with its styles and script inside, and helpers for tables."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources


def page(title: str, body: str, payload: str | None = None, *, reload: int | None = None) -> str:
    """A complete page. It asks the network for nothing, and its policy lets only its own script run.

    Args:
      reload: seconds after which a browser is to read the file again; None where it stays as it is.
    """
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    data = f'<script type="application/json" id="payload">{payload}</script>\n' if payload else ""
    again = "" if reload is None else f'<meta http-equiv="refresh" content="{reload}">\n'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{again}<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"{data}<script>{script}</script>\n</body>\n</html>\n"
    )


def section(identifier: str, title: str, *parts: str) -> str:
    """A titled part of the page."""
    return f'<section id="{identifier}">\n<h2>{escape(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def note(text: str) -> str:
    """A quiet line of explanation."""
    return f'<p class="note">{escape(text)}</p>'


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[int] = (0,),
    footer: Sequence[str] = (),
    strong: Sequence[int] = (),
) -> str:
    """A table of cells that are HTML already (escape what is not). `left`: columns aligned left."""
    aligned = [' class="left"' if i in left else "" for i in range(len(columns))]

    def row(cells: Sequence[str]) -> str:
        return "".join(f"<td{aligned[i]}>{cell}</td>" for i, cell in enumerate(cells))

    head = "".join(
        f'<th class="wrap{" left" if i in left else ""}">{escape(c)}</th>' for i, c in enumerate(columns)
    )
    body = "".join(
        f"<tr{' class=strong' if i in strong else ''}>{row(cells)}</tr>\n" for i, cells in enumerate(rows)
    )
    foot = f"<tfoot><tr>{row(footer)}</tr></tfoot>" if footer else ""
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>{foot}"
    return f'<div class="scroll"><table>{inner}</table></div>'


def tiles(values: Sequence[tuple[str, str, str]]) -> str:
    """Key figures: (value, what it is, a detail)."""
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span>'
        f"<span>{escape(detail)}</span></div>"
        for value, label, detail in values
    )
    return f'<div class="tiles">{inner}</div>'


def facts(values: Sequence[tuple[str, str]]) -> str:
    """A grid of names and values."""
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values)
        + "</dl>"
    )


def details(summary: str, text: str) -> str:
    """Long plain text behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def _asset(name: str) -> str:
    return (resources.files("coevo_jax.report") / "assets" / name).read_text(encoding="utf-8")
