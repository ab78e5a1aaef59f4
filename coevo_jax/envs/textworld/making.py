"""Making one TextWorld game inside the worker process: map, quest and text, then Inform 7 to a .z8 file.

Three things keep a game at about a second. A grammar is parsed once, not for every game. The challenges
record what their walkthrough does by compiling the unfinished game; here the same walkthrough is played on
TextWorld's own state engine, which needs no compiler. And a game is drawn again before it is compiled, not
after. The compiled bytes are the same. TextWorld: arXiv 1806.11532.
"""

import copy
import functools
import glob
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.envs.textworld.playing import load, step

ATTEMPTS = 60  # draws until one has the settings wanted and falls to the split; a split takes 1/2 or 1/4
SPLIT_QUARTERS = {"train": (0, 1), "dev": (2,), "test": (3,)}
SERIAL = slice(0x12, 0x18)  # of a Z-machine header: the date of compilation


def make_game(request: dict) -> dict | None:
    """Make the first game of a random sequence that can be solved and belongs to the split.

    Whether a game belongs to a split is decided by its content (a hash of its source), so that no two splits
    share a game, whatever else is made, and in whatever order.

    Args:
      request: `family` (see FAMILIES), `settings` of the family, `seed` (list of int), `split`, and `stem`,
        the path of the files to write, without ending.

    Returns:
      max_score, and the replayed walkthrough: `prompt`, `commands`, and a list `turns` of dicts with action,
      observation and commands. None when no draw succeeded.
    """
    import textworld
    from textworld.generator.chaining import QuestGenerationError
    from textworld.generator.inform7 import CouldNotCompileGameError, generate_inform7_source
    from textworld.generator.maker import QuestError

    _speed_up()
    for attempt in range(ATTEMPTS):
        seed = int(stream("textworld game", *request["seed"], attempt).integers(2**31 - 1))
        textworld.g_rng.set_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            game = FAMILIES[request["family"]](request["settings"], seed)
            source = generate_inform7_source(game)
        except (QuestGenerationError, QuestError, ValueError, AssertionError):
            continue  # no quest of this length on this map
        digest = hashlib.sha256(source.encode()).digest()
        if digest[0] % 4 not in SPLIT_QUARTERS[request["split"]]:
            continue
        try:
            _compile(game, source, Path(request["stem"]))
        except CouldNotCompileGameError:
            continue  # too large for a .z8 file
        if (solution := _solve(request["stem"], game.metadata["walkthrough"])) is not None:
            return solution
    return None


def _options(settings: dict, seed: int, logic: str | None = None, grammar: str | None = None) -> Any:
    from textworld import GameOptions
    from textworld.generator import data

    options = GameOptions()
    options.seeds = seed
    options.kb = data.KnowledgeBase.load(
        logic_path=logic or data.LOGIC_DATA_PATH, grammar_path=grammar or data.TEXT_GRAMMARS_PATH
    )
    options.nb_rooms, options.nb_objects = settings["rooms"], settings["objects"]
    options.quest_length = settings["quest_length"]
    options.grammar.only_last_action = not settings["full_instructions"]
    return options


def _quest(settings: dict, seed: int) -> Any:
    from textworld.generator import make_game

    return make_game(_options(settings, seed))


def _coin(settings: dict, seed: int) -> Any:
    from textworld.challenges.tw_coin_collector import coin_collector

    options = _options(settings, seed, *_folders(coin_collector.KB_PATH))
    options.grammar.allowed_variables_numbering = True
    return coin_collector.make_game("simple", options)


def _treasure(settings: dict, seed: int) -> Any:
    from textworld.challenges.tw_treasure_hunter import treasure_hunter

    options = _options(settings, seed, *_folders(treasure_hunter.KB_PATH))
    return treasure_hunter.make_game(settings["mode"], options)


def _cooking(settings: dict, seed: int) -> Any:
    from textworld.challenges.tw_cooking import cooking

    skills = {name: settings[name] for name in ("recipe", "take", "open", "cook", "cut", "go", "split")}
    skills |= {"drop": False, "recipe_seed": seed}
    return cooking.make(skills, _options(settings, seed))


FAMILIES: dict[str, Callable[[dict, int], Any]] = {
    "quest": _quest,
    "coin": _coin,
    "treasure": _treasure,
    "cooking": _cooking,
}


def _folders(challenge: str) -> tuple[str, str]:
    return os.path.join(challenge, "logic"), os.path.join(challenge, "text_grammars")


def _compile(game: Any, source: str, stem: Path) -> None:
    """Write `stem`.json and `stem`.z8, each whole; the date of the day is left out of the bytes."""
    from textworld.generator.inform7 import compile_inform7_game

    stem.parent.mkdir(parents=True, exist_ok=True)
    temporary = stem.with_name(f".{stem.name}.{os.getpid()}.z8")
    try:
        compile_inform7_game(source, str(temporary))
        story = bytearray(temporary.read_bytes())
        story[SERIAL] = b"000000"
        temporary.write_bytes(story)
        os.replace(temporary, stem.with_suffix(".z8"))
        game.save(str(temporary))
        os.replace(temporary, stem.with_suffix(".json"))
    finally:
        for left in (temporary, temporary.with_suffix(".ni")):
            left.unlink(missing_ok=True)


def _solve(stem: str, walkthrough: list[str]) -> dict | None:
    """Replay the walkthrough, without its detours where that suffices; None where it does not win."""
    for actions in (without_detours(walkthrough), walkthrough):
        if (played := _replay(f"{stem}.z8", actions)) is not None:
            return played
    return None


def without_detours(walkthrough: list[str]) -> list[str]:
    """The walkthrough without opening twice, looking into the inventory, or dropping what is taken next."""
    kept: list[str] = []
    for action in walkthrough:
        if action == "inventory" or (action.startswith("open ") and action in kept):
            continue
        if action.startswith("take ") and kept and kept[-1] == f"drop {action.removeprefix('take ')}":
            kept.pop()
            continue
        kept.append(action)
    return kept


def _replay(path: str, actions: list[str]) -> dict | None:
    engines: dict[str, Any] = {}
    start = load(engines, {"path": path})
    last, turns = start, []
    for action in actions:
        if last["won"] or last["lost"]:
            break
        last = step(engines, {"action": action})
        turns.append({"action": action, "observation": last["observation"], "commands": last["commands"]})
    engines["env"].close()
    if not last["won"] or last["score"] != last["max_score"]:
        return None
    return {
        "max_score": last["max_score"],
        "prompt": start["observation"],
        "commands": start["commands"],
        "turns": turns,
    }


@functools.cache
def _speed_up() -> None:
    """Parse each grammar once, in a fixed order of files, and record walkthroughs without a compiler."""
    from textworld.envs import TextWorldEnv
    from textworld.generator import data
    from textworld.generator.maker import GameMaker
    from textworld.logic import GameLogic

    play = TextWorldEnv.step

    @functools.cache
    def parsed(logic_path: str) -> Any:
        return GameLogic.load(sorted(glob.glob(os.path.join(logic_path, "*.twl"))))

    def load_base(
        target_dir: str | None = None, logic_path: str | None = None, grammar_path: str | None = None
    ) -> Any:
        if target_dir:
            logic_path, grammar_path = _folders(target_dir)
        logic_path, grammar_path = logic_path or data.LOGIC_DATA_PATH, grammar_path or data.TEXT_GRAMMARS_PATH
        base = data.KnowledgeBase(copy.deepcopy(parsed(logic_path)), grammar_path)
        base.logic_path = logic_path
        return base

    def save(maker: Any, path: str) -> str:
        maker._working_game = maker.build()
        target = str(Path(path).with_suffix(".json"))
        maker._working_game.save(target)
        return target

    def step_as_compiled(env: Any, command: str) -> Any:
        """A command without effect leaves the last action standing, as in the compiled game."""
        before = env._last_action
        state, score, done = play(env, command)
        if env._last_action is None:
            env._last_action = state["_last_action"] = before
        return state, score, done

    setattr(data.KnowledgeBase, "load", staticmethod(load_base))  # noqa: B010
    setattr(GameMaker, "compile", save)  # noqa: B010
    setattr(TextWorldEnv, "step", step_as_compiled)  # noqa: B010
