"""The expert: searches for the goal, opens the first result that earns everything, chooses, buys."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from coevo_jax.envs.env import Task, format_response
from coevo_jax.envs.webshop.catalogue import Product
from coevo_jax.envs.webshop.goals import Goal
from coevo_jax.envs.webshop.nouns import NounTagger
from coevo_jax.envs.webshop.pages import BUY, NEXT, PageView, Shop, follow, render, render_done
from coevo_jax.envs.webshop.reward import option_matches, webshop_reward
from coevo_jax.envs.webshop.shop import SharedShop
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Turn

SHORTEST = 3  # turns of a plan: it searches, opens a product and buys it


def shop_for(
    world: SharedShop, shop: Shop, nouns: NounTagger, task: Task, max_turns: int
) -> Demonstration | None:
    """A demonstration with reward 1 in as few turns as its queries allow; None where none finds one."""
    goal = world.goals[task.id]
    shop = replace(shop, search=lru_cache(shop.search))  # what a plan is made from is walked, and then played
    plan: list[str] | None = None
    for query in _queries(goal):
        found = _plan(world, shop, nouns, goal, query)
        plan = min((one for one in (plan, found) if one), key=len, default=None)
        if plan and len(plan) == SHORTEST:
            break
    return _play(world, shop, nouns, task, goal, plan) if plan and len(plan) <= max_turns else None


def _queries(goal: Goal) -> Iterator[str]:
    """Searches from the shortest to the fullest; of equally short plans the first query wins."""
    wanted = " ".join(goal.attributes)
    yield f"{wanted} {goal.query}"
    yield f"{wanted} {goal.query} {' '.join(goal.options)}"
    yield f"{goal.query} {' '.join(goal.options)}"
    yield goal.name


def _plan(world: SharedShop, shop: Shop, nouns: NounTagger, goal: Goal, query: str) -> list[str] | None:
    """Actions that buy the first result of a query that earns 1; None where no result does."""
    words = query.replace("[", " ").replace("]", " ")
    for place, hit in enumerate(shop.search(words.lower())):
        product = world.products[hit]
        choices = _choices(product, goal)
        price = world.prices[product.asin]
        if webshop_reward(product, price, choices.values(), goal, nouns) >= SOLVED_REWARD:
            turned = [f"click[{NEXT}]"] * (place // shop.per_page)
            chosen = [f"click[{value}]" for value in choices.values()]
            plan = [f"search[{words}]", *turned, f"click[{product.asin}]", *chosen, f"click[{BUY}]"]
            # Equal values of two options share one button, so a choice may not be what the click does.
            *_, last = _walk(shop, plan)
            if last.page == "done" and last.chosen == choices:
                return plan
    return None


def _choices(product: Product, goal: Goal) -> dict[str, str]:
    """For each of the goal's options the product's value that matches it, an equal one before a close one."""
    choices: dict[str, str] = {}
    for name, option in goal.named_options:
        wanted = option.strip().lower()
        values = [
            (own, value)
            for own, values in product.options.items()
            if own not in choices and name in (None, own)
            for value in values
        ]
        equal = next((pair for pair in values if pair[1] == wanted), None)
        found = equal or next((pair for pair in values if option_matches(pair[1], option, name)), None)
        if found:
            choices[found[0]] = found[1]
    return choices


def purchase_reward(world: SharedShop, nouns: NounTagger, goal: Goal, view: PageView) -> float:
    """Reward of buying what the view shows, with the options chosen on it."""
    if view.product is None:
        raise ValueError("a purchase needs a product")
    product = world.products[view.product]
    return webshop_reward(product, world.prices[product.asin], view.chosen.values(), goal, nouns)


def _walk(shop: Shop, plan: list[str]) -> Iterator[PageView]:
    view = PageView()
    for action in plan:
        following = follow(shop, view, action)
        if following is None:
            return
        yield (view := following)


def _play(
    world: SharedShop, shop: Shop, nouns: NounTagger, task: Task, goal: Goal, plan: list[str]
) -> Demonstration:
    """The demonstration of a plan that is known to work."""
    turns, reward = [], 0.0
    for action, view in zip(plan, _walk(shop, plan), strict=True):
        if view.page == "done":
            reward = purchase_reward(world, nouns, goal, view)
            observation = render_done(reward)
        else:
            observation = render(shop, view, goal.instruction)
        turns.append(Turn(response=format_response("", action), action=action, observation=observation))
    prompt = render(shop, PageView(), goal.instruction)
    return Demonstration(task_id=task.id, prompt=prompt, turns=tuple(turns), reward=reward)
