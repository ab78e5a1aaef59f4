"""Scripted imperfect players of WebShop: the way to a purchase is right, decisions are hasty at stated rates.

They stand in for what a pretrained model knows before it is trained on experts. A player searches, opens a
product, chooses options and buys; each decision goes wrong at a rate of its own, and a click that the page
does not offer is answered by an error, which the player handles in one of several ways.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Task, says_invalid
from coevo_jax.envs.players import Act, Lesson, PlayerHabits, Players, acting
from coevo_jax.envs.webshop.environment import WebShopEnv
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.pages import ASIN, BUY, FIXED_BUTTONS, buttons, parse_action
from coevo_jax.envs.webshop.words import OPTIONS
from coevo_jax.trajectory import Demonstration, Turn

FIXED = frozenset(button.lower() for button in FIXED_BUTTONS)
LEAST_TURNS = 6  # search, a product, three options, the purchase
TASKS_PER_PRODUCT = 2  # of the train split, at the least; 3 goals a product, 7 of 10 products in train


class WebShopHabits(PlayerHabits):
    """How often a scripted player of WebShop does what. All rates are chosen, none is measured."""

    seed: int = Field(0, ge=0)
    """Seed of the players' draws, apart from that of the catalogue and goals."""
    careful: float = Field(0.25, ge=0, le=1)
    """Share of the players who do everything as the expert does."""
    short_query: float = Field(0.4, ge=0, le=1)
    """The search names the kind of product alone, and a product of the first page is opened."""
    hasty: float = Field(0.3, ge=0, le=1)
    """After a full search a product of the first page is opened without a look at it."""
    first: float = Field(0.7, ge=0, le=1)
    """The product that is opened without a look is the first of the page; else any of the page."""
    skip_option: float = Field(0.35, ge=0, le=1)
    """A wanted option that the page offers is not chosen."""
    wrong_option: float = Field(0.08, ge=0, le=1)
    """What stands beside a wanted option on the page is clicked in its place: another value, or the name of
    an option, which is no button."""
    insist: float = Field(0.5, ge=0, le=1)
    """A wanted option that the page does not offer is clicked all the same, which is an error."""
    start_over: float = Field(0.3, ge=0, le=1)
    """After an error: the player begins with a search as the expert does, if the turns suffice."""
    repeat: float = Field(0.05, ge=0, le=1)
    """After an error: the same click once more. What is left of 1 goes on without it."""
    give_up: float = Field(0.25, ge=0, le=1)
    """After an error: the product is bought as it is."""
    check: float = Field(0.15, ge=0, le=1)
    """Before the purchase the player sees that something is wrong and starts over, if the turns suffice."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (total := self.start_over + self.repeat + self.give_up) > 1:
            raise ValueError(f"start_over, repeat and give_up of at most 1 together (they are {total:g})")
        return self


def lesson(options: WebShopOptions, habits: WebShopHabits, seed: int, episodes: int) -> Lesson:
    """What a stand-in learns from: players with the habits, over a catalogue of another seed.

    Raises:
      ConfigError: the catalogue is read from files, which have no other seed.
    """
    if options.data_path is not None:
        raise ConfigError("players: found data_path, expected a generated catalogue to make a base from")
    products = max(options.products or 0, episodes // TASKS_PER_PRODUCT)
    world = options.model_copy(update={"seed": seed, "products": products})
    world = WebShopOptions.model_validate(world.model_dump(exclude={"data_path"}))
    return Lesson(options=world, habits=habits, episodes=episodes)


def check_world(options: WebShopOptions) -> None:
    """Refuse tasks that the players cannot play.

    Raises:
      ConfigError: an episode is too short.
    """
    if options.max_turns < LEAST_TURNS:
        raise ConfigError(f"players: found max_turns {options.max_turns}, expected at least {LEAST_TURNS}")


def play(
    env: WebShopEnv, task: Task, habits: WebShopHabits, rng: np.random.Generator
) -> Demonstration | None:
    """An episode of one player, from the reset to the purchase; None where the expert finds nothing."""
    expert = env.expert(task)
    if expert is None:
        return None
    plan = [turn.action for turn in expert.turns]
    prompt, turns = env.reset(task), []
    act = acting(env, turns)

    def turns_left() -> int:
        return env.max_turns(task) - len(turns)

    right = rng.random() < habits.careful
    if not right:
        product, goal = _product_at(plan), env.goal(task)
        page = _open(act, plan[: product + 1], goal.query, habits, rng)
        found = turns[-1].action == plan[product]
        wanted = [_clicked(action) for action in plan[product + 1 : -1]] if found else goal.options
        start_over = _choose(act, page, wanted, habits, rng, turns_left)
        wrong = [turn.action for turn in turns] != plan[:-1]
        right = start_over or (wrong and rng.random() < habits.check)
    if right and turns_left() >= len(plan):
        reward = [act(action) for action in plan][-1].reward
    else:
        reward = act(plan[-1]).reward
    return Demonstration(task_id=task.id, prompt=prompt, turns=tuple(turns), reward=reward)


def _open(
    act: Act,
    plan: Sequence[str],
    query: str,
    habits: WebShopHabits,
    rng: np.random.Generator,
) -> str:
    """Search and open a product, the one of the plan or another; returns its page."""
    short = rng.random() < habits.short_query
    page = act(f"search[{query}]" if short else plan[0]).observation
    if short or rng.random() < habits.hasty:
        shown = [button for button in buttons(page) if ASIN.fullmatch(button)]
        place = 0 if rng.random() < habits.first else int(rng.integers(len(shown)))
        return act(f"click[{shown[place]}]").observation
    return [act(action) for action in plan[1:]][-1].observation


def _choose(
    act: Act,
    page: str,
    options: Sequence[str],
    habits: WebShopHabits,
    rng: np.random.Generator,
    turns_left: Callable[[], int],
) -> bool:
    """Choose options on a product's page; returns whether an error makes the player start over."""
    offered = buttons(page)
    for option in (option.lower() for option in options):
        if turns_left() < 3:  # one for an error's repetition, one for the purchase
            return False
        if option in offered:
            if rng.random() < habits.skip_option:
                continue
            if rng.random() < habits.wrong_option:
                option = offered[offered.index(option) - 1]
        elif rng.random() >= habits.insist:
            continue
        if not says_invalid(act(f"click[{option}]").observation):
            continue
        drawn = rng.random()
        if drawn < habits.start_over:
            return True
        if drawn < habits.start_over + habits.repeat:
            act(f"click[{option}]")
        elif drawn < habits.start_over + habits.repeat + habits.give_up:
            return False
    return False


def _product_at(plan: Sequence[str]) -> int:
    """The place of the click on a product."""
    return next(i for i, action in enumerate(plan) if ASIN.fullmatch(_clicked(action).upper()))


def _clicked(action: str) -> str:
    """The button that an action clicks, in lower case; "" for a search."""
    kind, argument = parse_action(action) or ("", "")
    return argument if kind == "click" else ""


def skills(prompt: str, turns: Sequence[Turn]) -> dict[str, bool]:
    """What an episode shows of the skills that come before deciding, each left out where it does not show.

    `copied`: the words of the first search all stand in the instruction. `opened`: the first click is one
    that the page offers. `wanted`: every option that was clicked stands in the instruction. `chosen`: of the
    product that was bought, every value that the instruction names was clicked.
    """
    actions = [parse_action(turn.action) or ("", "") for turn in turns]
    said = _words(prompt)
    shown = {}
    searched = next((words for kind, words in actions if kind == "search"), None)
    if searched is not None:
        shown["copied"] = set(searched.split()) <= set(said.split())
    clicked = next((turn for turn, (kind, _) in zip(turns, actions, strict=True) if kind == "click"), None)
    if clicked is not None:
        shown["opened"] = not says_invalid(clicked.observation)
    opened = [
        at
        for at, (kind, argument) in enumerate(actions)
        if kind == "click" and ASIN.fullmatch(argument.upper()) and not says_invalid(turns[at].observation)
    ]
    if not opened:
        return shown
    first, last = opened[0], opened[-1]
    options = [one for kind, one in actions[first:] if kind == "click" and _is_option(one)]
    if options:
        shown["wanted"] = all(_stands_in(option, said) for option in options)
    values = [one for one in buttons(turns[last].observation) if _is_option(one) and one not in OPTIONS]
    named = {value for value in values if _stands_in(value, said)}
    if named and actions[-1] == ("click", BUY.lower()):
        shown["chosen"] = named <= {one for _, one in actions[last:]}
    return shown


def _is_option(button: str) -> bool:
    """Whether a button is none that every page may have, and no product."""
    return button.lower() not in FIXED and ASIN.fullmatch(button.upper()) is None


def _words(prompt: str) -> str:
    """An instruction's words with one space between them, without the marks behind them."""
    return " ".join(word.strip(".,") for word in prompt.lower().split())


def _stands_in(value: str, said: str) -> bool:
    """Whether the words of a value stand in an instruction, side by side."""
    return f" {value} " in f" {said} "


PLAYERS = Players(
    habits=WebShopHabits,
    stream="webshop players",
    check=check_world,
    lesson=lesson,
    play=play,
    skills=skills,
    skill_words={
        "copied": "first search has the instruction's words",
        "opened": "first click is offered",
        "wanted": "options that it clicks stand in the instruction",
        "chosen": "bought with every option of the page that the instruction names",
    },
)
