"""What the page's browsers show: a sample of a run's trajectories and pairs that keeps the page small."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.pieces import Decode
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.report.cast import EXPERT, Cast, agent_name, kind_name
from coevo_jax.report.shading import decoder_of, turn_shades
from coevo_jax.report.words import round_name
from coevo_jax.trajectory import Trajectory

MOST_TRAJECTORIES = 150  # per round and phase
MOST_PAIRS = 25  # per round, agent and kind
PAGE_BYTES = 5_500_000  # of text, shared evenly by the rounds and phases; a fifth of it is kept for pairs
LONGEST_TEXT = 3000  # characters of one response, observation or prompt

AFTERWARDS = -1  # stands for the round of evaluations of the stored run

_SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-\d{5}\.parquet")
Group = tuple[int, str]  # round and source: a collection, eval-AGENT, expert, or the file of an evaluation
Key = tuple[int, str, str, int]  # round, source, task, sample; experts stand in round 0


class _Payload:
    """The JSON of the page while it grows: each trajectory and each prompt stands in it once."""

    def __init__(self, decode: Decode | None) -> None:
        self.decode = decode
        self.trajectories: list[dict[str, Any]] = []
        self.prompts: dict[str, int] = {}
        self.index: dict[Key, int] = {}

    def add(self, key: Key, group: int, trajectory: Trajectory) -> tuple[int, int]:
        """Add a trajectory of a group unless it is there; returns its index and the bytes it added."""
        if key in self.index:
            return self.index[key], 0
        prompt = _cut(trajectory.prompt)
        size = 0 if prompt in self.prompts else len(prompt.encode())
        turns = [
            [_cut(t.response), _unsaid(t.response, t.action), _cut(t.observation)] for t in trajectory.turns
        ]
        for turn, action in zip(turns, trajectory.hints, strict=False):  # none where nothing was suggested
            turn.append(_cut(action))
        size += sum(len(text.encode()) for turn in turns for text in turn if text) + 120
        shades = turn_shades(trajectory, self.decode) if self.decode else None
        size += 3 * sum(map(len, shades or []))
        self.index[key] = len(self.trajectories)
        self.trajectories.append(
            {
                "group": group,
                "task": trajectory.task_id,
                "sample": trajectory.sample,
                "prompt": self.prompts.setdefault(prompt, len(self.prompts)),
                "reward": round(float(trajectory.reward), 4),
                "ending": str(trajectory.ending),
                "tokens": int(trajectory.agent_mask.sum()),
                "turns": turns,
                "shades": shades,
            }
        )
        return self.index[key], size


def browser_payload(run_dir: Path, cast: Cast, hard_negative_threshold: float) -> dict[str, Any]:
    """Sample trajectories and pairs of a run for the page.

    Tasks are taken in an order drawn by a hash of their id, the same in every round and phase, so that
    what different agents did on one task can be compared.

    Raises:
      ConfigError: a pair file is broken.
    """
    groups = dict(sorted(find_groups(run_dir).items(), key=lambda item: _shown_place(cast, item[0])))
    pair_files = sorted(
        (run_dir / "pairs").glob("round-*-*.jsonl"), key=lambda path: _shown_order(cast, path)
    )
    wanted = {path: read_pairs(path) for path in pair_files}
    payload = _Payload(decoder_of(run_dir))
    shown_groups: list[dict[str, Any]] = []
    needed = _needed(wanted)
    budget = PAGE_BYTES / max(len(groups), 1)
    for index, (group, paths) in enumerate(groups.items()):
        records = sorted(read_trajectories(paths), key=lambda t: (_draw(t.task_id), t.sample))
        items = _add_until(payload, group, index, records[:MOST_TRAJECTORIES], budget * 0.8)
        items.sort(key=lambda i: (payload.trajectories[i]["task"], payload.trajectories[i]["sample"]))
        words = _group_words(run_dir, cast, group, records[0].agent if records else "")
        place = {"round": group[0], "source": group[1]}
        shown_groups.append({**place, **words, "total": len(records), "items": items})
        paired = (t for t in records if (*group, t.task_id, t.sample) in needed)
        _add_until(payload, group, index, paired, budget * 0.2)
    return {
        "threshold": hard_negative_threshold,
        "groups": shown_groups,
        "pairs": [_pair_group(payload, cast, path, lines) for path, lines in wanted.items()],
        "trajectories": payload.trajectories,
        "prompts": list(payload.prompts),
    }


def find_groups(run_dir: Path) -> dict[Group, list[Path]]:
    """The files of a run's trajectories by round and source.

    Experts stand as round 0, evaluations of the stored run as AFTERWARDS.
    """
    folder = run_dir / "trajectories"
    groups: dict[Group, list[Path]] = {}
    if (folder / "experts.parquet").exists():
        groups[(0, EXPERT)] = [folder / "experts.parquet"]
    for path in sorted(folder.glob("round-*/*.parquet")):
        name = _SHARD.fullmatch(path.name)
        if name and path.parent.name[6:].isdigit():
            groups.setdefault((int(path.parent.name[6:]), name["name"]), []).append(path)
    for path in sorted((run_dir / "evaluations").glob("*.parquet")):
        groups[(AFTERWARDS, path.stem)] = [path]
    return groups


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Read a file of pairs.

    Raises:
      ConfigError: a line is not a pair; the message names the line.
    """
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            pair = json.loads(line)
            named = [pair["task_id"], pair["kind"], pair["chosen"]["source"], pair["rejected"]["source"]]
            numbers = [pair["chosen"]["sample"], pair["rejected"]["sample"], *first_turns(pair)]
            if {type(n) for n in named} != {str} or {type(n) for n in numbers} != {int}:
                raise TypeError("names are text, samples and turns are whole numbers")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}:{number}: expected a JSON object with task_id, kind, chosen and rejected "
                f"(source and sample each), found {line[:80]!r}"
            ) from error
        pairs.append(pair)
    return pairs


def first_turns(pair: dict[str, Any]) -> list[int]:
    """The turns from which on the chosen and the rejected side of a line of a pair file count, from 0."""
    return [pair.get("chosen_from", 0), pair.get("rejected_from", 0)]


def embed_json(value: Any) -> str:
    """JSON that is safe inside a script element, whatever text it holds: no "<", ">" or "&" remains."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _shown_place(cast: Cast, group: Group) -> tuple[Any, ...]:
    """Rounds in order, and those of a round as the recipe has them; last, what was evaluated afterwards."""
    number, source = group
    return (True, 0, source) if number == AFTERWARDS else (False, number, cast.source_order(source), source)


def _group_words(run_dir: Path, cast: Cast, group: Group, agent: str) -> dict[str, str]:
    """What a group is called, and the round it stands in."""
    number, source = group
    if number != AFTERWARDS:
        return {"place": round_name(number), "name": cast.source_name(source, agent)}
    return {"place": "Evaluated afterwards", "name": _evaluation_words(run_dir, source)}


def _evaluation_words(run_dir: Path, name: str) -> str:
    """What an evaluation of the stored run played, from the record beside its trajectories."""
    path = run_dir / "evaluations" / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        agent, split, tasks, temperature = (record[k] for k in ("agent", "split", "tasks", "temperature"))
        warm = f", temperature {temperature:g}" if temperature else ""
        mark = f", under “{record['mark']}”" if record.get("mark") else ""
        return f"{agent_name(agent)} on {split}, {tasks} tasks{warm}{mark}"
    except FileNotFoundError:  # it is written last: what played on was interrupted
        return name
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected a JSON object with agent, split, tasks and temperature ({error!r})"
        ) from error


def _place(path: Path) -> tuple[int, str]:
    """Round and learning of a pair file, from its name round-RR-LEARNING.jsonl."""
    _, number, learning = path.stem.split("-", 2)
    if not number.isdigit():
        raise ConfigError(f"{path}: expected a name such as round-01-target.jsonl")
    return int(number), learning


def _shown_order(cast: Cast, path: Path) -> tuple[int, int, int, str]:
    """By rounds; of one, the lead's learnings first, and those of an agent in the recipe's order."""
    number, learning = _place(path)
    order = list(cast.learnings)
    place = order.index(learning) if learning in order else len(order)
    return number, cast.place(cast.learnings.get(learning, learning)), place, learning


def _sample_pairs(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first pairs of every kind, tasks in drawn order."""
    ordered = sorted(lines, key=lambda p: _draw(p["task_id"]))
    kinds = sorted({p["kind"] for p in ordered})
    return [p for kind in kinds for p in [q for q in ordered if q["kind"] == kind][:MOST_PAIRS]]


def _key(number: int, task: str, side: dict[str, Any]) -> Key:
    return (0 if side["source"] == EXPERT else number, side["source"], task, side["sample"])


def _needed(wanted: dict[Path, list[dict[str, Any]]]) -> set[Key]:
    return {
        _key(_place(path)[0], pair["task_id"], pair[side])
        for path, lines in wanted.items()
        for pair in _sample_pairs(lines)
        for side in ("chosen", "rejected")
    }


def _pair_group(payload: _Payload, cast: Cast, path: Path, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    number, learning = _place(path)
    items = []
    for pair in _sample_pairs(lines):
        sides = [payload.index.get(_key(number, pair["task_id"], pair[s])) for s in ("chosen", "rejected")]
        if None not in sides:
            items.append(
                {
                    "task": pair["task_id"],
                    "kind": pair["kind"],
                    "chosen": sides[0],
                    "rejected": sides[1],
                    "from": first_turns(pair),
                    "weights": pair.get("rejected_turns") or [],
                }
            )
    kinds = {kind: kind_name(kind) for kind in dict.fromkeys(item["kind"] for item in items)}
    words = {"place": round_name(number), "name": cast.learning_name(learning)}
    place = {"round": number, "learning": learning}
    return {**place, **words, "kinds": kinds, "total": len(lines), "items": items}


def _add_until(
    payload: _Payload, group: Group, index: int, records: Iterable[Trajectory], budget: float
) -> list[int]:
    items = []
    for trajectory in records:
        item, size = payload.add((*group, trajectory.task_id, trajectory.sample), index, trajectory)
        items.append(item)
        budget -= size
        if budget < 0:
            break
    return items


def _draw(task_id: str) -> bytes:
    return hashlib.sha256(task_id.encode()).digest()


def _unsaid(response: str, action: str) -> str | None:
    """The action where the response does not end with it; None where the page can find it there."""
    return None if action and response.rstrip().endswith(action.rstrip()) else _cut(action)


def _cut(text: str) -> str:
    rest = len(text) - LONGEST_TEXT
    return text if rest <= 0 else f"{text[:LONGEST_TEXT]}\n… {rest} more characters"
