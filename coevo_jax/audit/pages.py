"""The tables of a report's page: read back from its HTML, and as they are to be, to the last digit."""

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from coevo_jax.audit.after_errors import FOLLOWED

Entry = dict[str, Any]
Row = dict[str, str]  # a cell's text by its column's title
SAID_ANEW = {"Branches (branches)": "Branches"}  # what pages of earlier versions say


class _Tables(HTMLParser):
    """Collects the tables of a page by the section they stand in."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[list[str]]]] = {}
        self._section = ""
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr" and self.tables.get(self._section):
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            text = "".join(self._cell).strip()
            self.tables[self._section][-1][-1].append(SAID_ANEW.get(text, text))
            self._cell = None


def read_tables(path: Path) -> dict[str, list[list[Row]]]:
    """The rows of every table of a page, by section; a table that names no columns twice."""
    parser = _Tables()
    parser.feed(path.read_text(encoding="utf-8"))
    found: dict[str, list[list[Row]]] = {}
    for section, tables in parser.tables.items():
        for head, *body in tables:
            rows = [dict(zip(head, cells, strict=False)) for cells in body]
            found.setdefault(section, []).append(rows)
    return found


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "–" if value is None else f"{100 * value:.1f} %"


def whole(value: float | None) -> str:
    """A number without decimals, its thousands set apart, or a dash."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def interval(value: float | None, ci: list[float] | None) -> str:
    """A number with its confidence interval in brackets, where there is one."""
    bounds = "" if ci is None else f"[{ci[0]:.3f}, {ci[1]:.3f}]"
    return f"{fixed(value)} {bounds}".strip()


def summary_cells(entry: dict[str, Any]) -> Row:
    """What a row of roll-outs shows; other columns of the page are not looked at."""
    endings = entry["endings"]
    return {
        "Roll-outs": whole(entry["n"]),
        "Faults": whole(entry["faults"]),
        "Mean reward": interval(entry["mean_reward"], entry["mean_reward_ci"]),
        "Success": percent(entry["success_rate"]),
        "Hard neg.": percent(entry["hard_negative_share"]),
        "… of failures": percent(entry["hard_negative_share_of_failures"]),
        "Failures' reward": fixed(entry["mean_failure_reward"]),
        "Turns": fixed(entry["mean_turns"], 1),
        "Agent tokens": fixed(entry["mean_agent_tokens"], 0),
        "Cut by turn / token limit": f"{whole(endings['turn_limit'])} / {whole(endings['token_limit'])}",
    }


def error_cells(entry: Entry) -> Row:
    """What followed the first errors of a row of roll-outs."""
    errors = entry["after_error"]
    count = errors["episodes"]
    parts = {name.replace("_", " ").capitalize(): errors[name] for name in FOLLOWED}
    shares = {name: f" {100 * n / count:.0f} %" if count else "" for name, n in parts.items()}
    return {
        "With an error": f"{whole(count)} of {whole(entry['finished'])}",
        **{name: whole(n) + shares[name] for name, n in parts.items()},
        "Successes with an error": f"{whole(errors['successes'])} {percent(errors['success_rate'])}",
        "Failures' tokens behind": percent(errors["failure_tokens_behind"]),
    }


def pull_cells(entry: Entry) -> Row:
    """How hard preferences and imitation pull, and their ratio with the weaker one as 1."""
    preference, imitation = entry["preference"], entry["sft"]
    weaker = min(preference, imitation)
    if weaker > 0:
        ratio = f"{preference / weaker:.3g} : {imitation / weaker:.3g}"
    elif preference > 0:
        ratio = "preferences alone"
    else:
        ratio = "imitation alone" if imitation > 0 else "nothing pulls"
    return {
        "Preferences": f"{preference:.2g}",
        "Imitation": f"{imitation:.2g}",
        "Preferences : imitation": ratio,
    }


def expected_tables(
    evaluations: Sequence[Entry],
    explorations: Sequence[Entry],
    pairs: Sequence[Entry],
    pulls: Sequence[Entry],
) -> dict[str, list[Row]]:
    """The rows of each section's table; none where there is nothing to show."""

    def whose(entry: Entry) -> Row:
        return {"Round": round_words(entry["round"]), "Agent": agent_words(entry["agent"])}

    def evaluated(entry: Entry) -> str:
        own = entry.get("name")
        told = " (uses test feedback)" if entry.get("test_feedback") else ""
        return agent_words(entry["agent"]) + (f", {own.replace('_', ' ')}" if own else "") + told

    def phase(entry: Entry) -> Row:
        return {"Round": round_words(entry["round"]), "Phase": exploration_words(entry)}

    # By rounds, what was explored before what was evaluated.
    played = [(e["round"], 0, exploration_words(e), e) for e in explorations]
    played += [(e["round"], 1, f"{evaluated(e)}, {e['split']}", e) for e in evaluations]
    played.sort(key=lambda one: one[:2])
    return {
        "rounds": [whose(e) | {"Agent": evaluated(e)} | summary_cells(e) for e in evaluations],
        "exploration": [phase(e) | summary_cells(e) for e in explorations],
        "errors": [
            {"Round": round_words(number), "Roll-outs": words} | error_cells(e)
            for number, _, words, e in played
            if "after_error" in e
        ],
        "pairs": [
            whose(p)
            | {
                "Kind": kind_words(p["kind"]),
                "Pairs": whole(p["count"]),
                "Tasks": whole(p["tasks"]),
                "Mean reward gap": fixed(p["mean_reward_gap"]),
            }
            for p in pairs
        ],
        "pulls": [whose(p) | pull_cells(p) for p in pulls],
    }


def round_words(number: int) -> str:
    """A round as a heading names it."""
    return "Warm start" if number == 0 else f"Round {number}"


def plain(name: str) -> str:
    """A name of a recipe as a line begins with it."""
    words = name.replace("_", " ")
    return words[0].upper() + words[1:]


def agent_words(name: str) -> str:
    """An agent as the page has it."""
    return "Failure agent" if name == "failure" else plain(name)


def exploration_words(entry: Entry) -> str:
    """An exploration as the page has it: who explores, or a collection with a name of its own."""
    kind, _, collection = entry["phase"].partition("_")
    if kind == "branch":
        return plain(collection) if collection == "branches" else f"{plain(collection)} (branches)"
    return f"{agent_words(collection)} explores" if collection == entry["agent"] else plain(collection)


def kind_words(kind: str) -> str:
    """A kind of pair as the page has it."""
    told = {
        "expert_target": "expert over target failure",
        "success_failure": "success over failure",
        "expert_failure": "expert over failure-agent failure",
        "failure_failure": "better over worse failure",
        "expert_over": "expert over failure",
    }
    return told.get(kind, kind.replace("_", " "))
