"""Reports as self-contained HTML files: of one run, and of several side by side."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coevo_jax.files import write_whole
from coevo_jax.report.browser import browser_payload, embed_json
from coevo_jax.report.cast import cast_of
from coevo_jax.report.comparison import Comparison
from coevo_jax.report.comparison_page import Shown, comparison_page
from coevo_jax.report.errors import errors_section
from coevo_jax.report.page import note, page, section
from coevo_jax.report.paired import Paired
from coevo_jax.report.run_page import (
    explorations_section,
    header,
    histograms_section,
    pairs_section,
    pulls_section,
    rounds_section,
    time_section,
)
from coevo_jax.report.training import training_section
from coevo_jax.run_folder.metrics import METRICS_FILE, read_metrics
from coevo_jax.run_folder.results import Results, load_results
from coevo_jax.run_folder.standing import Standing, standing_of

PAGE = "report.html"
RELOAD = 30  # seconds until the page of a run that is under way is read again

_LINKS = {
    "rounds": "Rounds",
    "rewards": "Rewards",
    "exploration": "Exploration",
    "errors": "Errors",
    "learning": "Learning",
    "pairs": "Pairs",
    "pulls": "Pull",
    "time": "Time",
    "trajectories": "Trajectories",
    "pair-texts": "Pairs in full",
}
_OUTCOMES = {
    "all": "All",
    "solved": "Solved",
    "failure": "Failures",
    "hard": "Hard negatives",
    "turn_limit": "Turn limit",
    "token_limit": "Token limit",
    "fault": "Faults",
}


def write_report(run_dir: Path | str, out: Path | None = None) -> Path:
    """Write `report.html` of a run from its results, metrics, trajectories and pairs; returns its path.

    Only results.json is needed: what a young run does not have yet is left out.

    Raises:
      ConfigError: results.json is missing, or any of the files is broken.
    """
    run_dir = Path(run_dir)
    results = load_results(run_dir)
    threshold = next((e["hard_negative_threshold"] for e in results["evaluations"]), 0.6)
    cast = cast_of(results)
    payload = browser_payload(run_dir, cast, threshold)
    training = training_section(read_metrics(run_dir / METRICS_FILE), cast)
    text = run_page(results, training, payload, standing_of(run_dir))
    return write_whole(out or run_dir / PAGE, text)


def write_comparison(
    comparison: Comparison, paired: Paired, runs: Sequence[tuple[Path, Results]], out: Path
) -> Path:
    """Write the page that shows several runs side by side; returns its path.

    Args:
      runs: the folders with their results; where a folder has a page of its own, a link leads there.
    """
    shown = [Shown(results=results, page=_page_seen_from(out, folder)) for folder, results in runs]
    return write_whole(out, comparison_page(comparison, paired, shown))


def _page_seen_from(out: Path, folder: Path) -> str:
    path = folder / PAGE
    return quote(os.path.relpath(path.resolve(), out.resolve().parent)) if path.is_file() else ""


def run_page(results: Results, training: str, payload: dict[str, Any], standing: Standing) -> str:
    """The page of a run as HTML; while the run is under way, it reads itself again."""
    sections = [
        rounds_section(results),
        histograms_section(results),
        explorations_section(results),
        errors_section(results),
        training,
        pairs_section(results),
        pulls_section(results),
        time_section(results),
        _trajectories(payload),
        _pairs(payload),
    ]
    sections = [part for part in sections if part]
    present = {
        name: title for name, title in _LINKS.items() if any(f'id="{name}"' in part for part in sections)
    }
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in present.items())
    body = [note(standing.words)] if standing.words else []
    body += [header(results), f"<nav>{links}</nav>", *sections, "<footer>Written by coevo_jax.</footer>"]
    title = f"{results['name']} · {results['method']} on {results['env']}"
    return page(title, "\n".join(body), embed_json(payload), reload=RELOAD if standing.under_way else None)


def _trajectories(payload: dict[str, Any]) -> str:
    if not payload["groups"]:
        return ""
    tools = [_select("round", "Round"), _select("source", "Phase"), _select("outcome", "Outcome", _OUTCOMES)]
    browser = _browser("trajectory-browser", [*tools, _search()])
    return section("trajectories", "Trajectories", browser)


def _pairs(payload: dict[str, Any]) -> str:
    if not payload["pairs"]:
        return ""
    tools = [_select("round", "Round"), _select("learning", "Learner"), _select("kind", "Kind"), _search()]
    return section("pair-texts", "Pairs in full", _browser("pair-browser", tools))


def _browser(identifier: str, tools: list[str]) -> str:
    return (
        f'<div id="{identifier}" class="interactive"><div class="bar-tools">{"".join(tools)}</div>'
        '<p class="note" aria-live="polite"></p>'
        '<p class="note keys">Arrow keys: up and down in the list, left and right in what it has opened.</p>'
        '<div class="browser"><div class="list"></div><div class="detail" tabindex="0"></div></div></div>'
        "<noscript><p>This part needs JavaScript; the data stand in the page's JSON.</p></noscript>"
    )


def _select(name: str, label: str, options: dict[str, str] | None = None) -> str:
    choices = "".join(f'<option value="{value}">{text}</option>' for value, text in (options or {}).items())
    return f'<label>{label}<select name="{name}">{choices}</select></label>'


def _search() -> str:
    return '<label>Search<input type="search" name="search" placeholder="Task, action, observation"></label>'
