"""An object with reset and step as an environment.

The shape is Gymnasium's: `reset(seed=…)` gives an observation, or that and a record; `step(action)` gives
observation, reward, terminated, truncated and a record, or (older) observation, reward, done and a record.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault, StepResult, Task
from coevo_jax.envs.observed import cut, new_of, text_of
from coevo_jax.envs.reset_step.options import ResetStepOptions
from coevo_jax.envs.rewards import RewardCount
from coevo_jax.envs.seeds import seed_of, seed_tasks
from coevo_jax.envs.written import ActionForm, Asked, NotAnAction, action_form
from coevo_jax.trajectory import Demonstration

FIELD = "action"  # what an action's record is made of here
TYPES = {"text": "string", "integer": "integer", "choice": "integer"}
BEGUN = "The episode has begun."  # where a first observation shows nothing


def make_reset_step(options: ResetStepOptions) -> "ResetStepEnv":
    """Make one instance; its object is made at the first reset.

    Raises:
      ConfigError: no function is named, or there is no such one.
    """
    if options.make is None:
        raise ConfigError("env.options.make: found null, expected package.module:function, as gymnasium:make")
    module, _, name = options.make.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"env.options.make: found {options.make!r}: {error}") from None
    if not callable(make):
        raise ConfigError(f"env.options.make: found {options.make!r}, expected a function")
    as_text = options.choice_as == "text"
    asked = Asked(
        action="auto" if options.action == "record" else options.action,
        choices=options.choices,
        examples=options.examples,
    )
    kind = "string" if as_text else TYPES.get(options.action, "object")
    form = action_form({"properties": {FIELD: {"type": kind}}, "required": [FIELD]}, asked)
    return ResetStepEnv(options, form, partial(make, **options.arguments))


class ResetStepEnv:
    """One object and the episode it plays. Offers `tries` (`TriesActions`)."""

    name = "reset_step"

    def __init__(self, options: ResetStepOptions, form: ActionForm, make: Callable[[], Any]):
        self._options, self._form, self._make = options, form, make
        self.deterministic = options.deterministic
        self.system_prompt = form.words if options.system_prompt is None else options.system_prompt
        self._object: Any = None
        self._reward: RewardCount | None = None  # of the running episode
        self._shown = ""  # all that the newest observation said

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in shuffled order."""
        options = self._options
        counts = (options.train_tasks, options.dev_tasks, options.test_tasks)
        return seed_tasks(["seed"], counts, split, options.seed)

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut."""
        return self._options.max_turns

    def reset(self, task: Task) -> str:
        """Start an episode with the task's seed."""
        self._reward = None
        if self._object is None:
            self._object = self._make()
        found = self._object.reset(seed=seed_of(task))
        with_record = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)
        self._shown = self._text(found[0] if with_record else found)
        self._reward = RewardCount(self._options.reward, self._options.reward_range)
        return cut(self._shown, self._options.prompt_chars) if self._shown.strip() else BEGUN

    def step(self, action: str) -> StepResult:
        """Play one action; a text that is none is answered by "Invalid action".

        Raises:
          RuntimeError: no episode has begun, or the last one is over.
          EnvFault: what the object gave is of another shape.
        """
        count = self._reward
        if count is None:
            raise RuntimeError("step outside an episode: call reset first")
        try:
            taken = self._form.read(action)
        except NotAnAction as error:
            return StepResult(observation=f"Invalid action: {error}.", done=False, reward=0.0)
        found = self._object.step(taken if self._form.kind == "record" else taken[FIELD])
        if not isinstance(found, tuple) or len(found) not in (4, 5):
            raise EnvFault(f"step: found {found!r:.100}, expected a tuple of 4 or 5, as Gymnasium has it")
        observation, reward, *ends, _ = found
        count.add(float(reward) if isinstance(reward, np.generic) else reward)
        text = self._text(observation)
        shown = new_of(text, self._shown) if self._options.only_new else text
        self._shown, done = text, any(map(bool, ends))
        if done:
            self._reward = None
        return StepResult(
            observation=cut(shown, self._options.observation_chars),
            done=done,
            reward=count.value if done else 0.0,
        )

    def reward_at_limit(self) -> float:
        """The reward that the episode has earned so far."""
        return 0.0 if self._reward is None else self._reward.value

    def expert(self, task: Task) -> Demonstration | None:
        """The object brings no experts."""
        return None

    def tries(self, task: Task, rng: np.random.Generator) -> str:
        """An action that could be meant, drawn from the choices or from the option `examples`."""
        return self._form.tries(rng)

    def close(self) -> None:
        """Close the object, if it can be closed; safe to call twice."""
        known, self._object, self._reward = self._object, None, None
        close = getattr(known, "close", None)
        if callable(close):
            close()

    def _text(self, observation: Any) -> str:
        if self._options.render:
            observation = self._object.render()
            if not isinstance(observation, str):
                raise EnvFault(f"render: found {observation!r:.60}, expected a text (render_mode: ansi)")
        if isinstance(observation, np.ndarray | np.generic):
            observation = observation.tolist()
        return text_of(observation, self._options.observation)
