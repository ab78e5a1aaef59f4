"""The WebShop environment: find, customise and buy the product that an instruction asks for."""

from collections.abc import Sequence
from typing import Any

from coevo_jax.envs.env import StepResult, Task
from coevo_jax.envs.webshop.expert import purchase_reward, shop_for
from coevo_jax.envs.webshop.goals import Goal
from coevo_jax.envs.webshop.nouns import NounTagger
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.pages import PageView, buttons, follow, render, render_done
from coevo_jax.envs.webshop.shop import SharedShop, make_shop, open_world, tagger_of
from coevo_jax.trajectory import Demonstration

INVALID_ACTION = "Invalid action: expected search[words], or click[...] with a button or option of the page."


class WebShopEnv:
    """One instance: the page of its episode; catalogue, index and goals are shared.

    Source of the rules: WebShop (arXiv 2207.01206) in text mode; ten turns and reward 0 at the limit:
    ETO (arXiv 2403.02502). An action upstream ignores (it shows the page again) is answered by
    "Invalid action"; the page stays.
    """

    name = "webshop"
    system_prompt = "Shop by search[words] and click[button], then click[Buy Now]."
    deterministic = True

    def __init__(self, options: WebShopOptions, world: SharedShop, nouns: NounTagger):
        self._options, self._world, self._nouns = options, world, nouns
        self._shop = make_shop(world, options.results_per_page)
        self._task: Task | None = None
        self._view = PageView()

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in a fixed, already shuffled order."""
        return self._world.splits[split]

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut."""
        return self._options.max_turns

    def reset(self, task: Task) -> str:
        """Start an episode; returns the search page with the instruction."""
        self._task, self._view = task, PageView()
        return render(self._shop, self._view, self._world.goals[task.id].instruction)

    def step(self, action: str) -> StepResult:
        """Search or click; buying ends the episode.

        Raises:
          RuntimeError: no episode has begun, or the last one is over.
        """
        if self._task is None:
            raise RuntimeError("step outside an episode: call reset first")
        goal = self._world.goals[self._task.id]
        view = follow(self._shop, self._view, action)
        if view is None:
            return StepResult(observation=INVALID_ACTION, done=False, reward=0.0)
        if view.page == "done":
            self._task = None
            reward = purchase_reward(self._world, self._nouns, goal, view)
            return StepResult(observation=render_done(reward), done=True, reward=reward)
        self._view = view
        observation = render(self._shop, view, goal.instruction)
        return StepResult(observation=observation, done=False, reward=0.0)

    def reward_at_limit(self) -> float:
        """An episode that is cut before the purchase earns 0."""
        return 0.0

    def offered(self, observation: str) -> Sequence[str]:
        """A click on every button of a page."""
        return [f"click[{button}]" for button in buttons(observation)]

    def snapshot(self) -> Any:
        """The page at hand with what was chosen on it; nothing else changes in an episode."""
        return self._view

    def restore(self, task: Task, state: Any) -> None:
        """Go on from the page that a `snapshot` of this task kept."""
        self._task, self._view = task, state

    def expert(self, task: Task) -> Demonstration | None:
        """A purchase with reward 1, or None where no search of the expert's finds one in time."""
        return shop_for(self._world, self._shop, self._nouns, task, self._options.max_turns)

    def goal(self, task: Task) -> Goal:
        """What the reward of a task is counted against; no agent sees it."""
        return self._world.goals[task.id]

    def close(self) -> None:
        """End the episode; there is nothing else to free."""
        self._task = None


def make_webshop(options: WebShopOptions) -> WebShopEnv:
    """A new instance over the world of the options, which is built once.

    Raises:
      ConfigError: files are missing or broken, or spaCy is asked for but missing.
    """
    return WebShopEnv(options, open_world(options), tagger_of(options))
