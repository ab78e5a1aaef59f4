"""The environment behind an OpenEnv server: episodes over its WebSocket, tasks by its routes or by seeds.

Protocol: OpenEnv 0.10 (github.com/meta-pytorch/OpenEnv). One socket is one session, and plays one episode.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.envs.env import SPLITS, StepResult, Task
from coevo_jax.envs.observed import check_shown, cut, new_of, text_of
from coevo_jax.envs.openenv.options import OpenEnvOptions
from coevo_jax.envs.openenv.server import Server, ask_server
from coevo_jax.envs.openenv.session import Refused, Session
from coevo_jax.envs.rewards import RewardCount
from coevo_jax.envs.seeds import seed_of, seed_tasks
from coevo_jax.envs.written import ActionForm, Asked, NotAnAction, action_form
from coevo_jax.trajectory import Demonstration

SEEDS = (400, 40, 60)  # tasks of train, dev and test where neither server nor options say how many
BEGUN = "The episode has begun."  # where a first observation shows nothing


def make_openenv(options: OpenEnvOptions) -> "OpenEnvEnv":
    """Make one instance; its socket is opened at the first reset.

    Raises:
      ConfigError: no server answers, it speaks something else, or its records do not fit the options.
    """
    server = ask_server(options.url, options.timeout, options.answer_bytes)
    asked = Asked(
        action=options.action,
        action_field=options.action_field,
        choices=options.choices,
        fixed=options.fixed,
        examples=options.examples,
    )
    form = action_form(server.action, asked)
    check_shown(options.observation, server.observation)
    return OpenEnvEnv(options, form, task_table(server, options))


class OpenEnvEnv:
    """One session of a server. Offers `tries` (`TriesActions`) and `most_instances` (`LimitsInstances`)."""

    name = "openenv"

    def __init__(
        self, options: OpenEnvOptions, form: ActionForm, tasks: Mapping[str, Mapping[Task, dict[str, Any]]]
    ):
        self._options, self._form, self._tasks = options, form, tasks
        self.deterministic = options.deterministic
        self.system_prompt = form.words if options.system_prompt is None else options.system_prompt
        self._session = Session(options)
        self._reward: RewardCount | None = None  # of the running episode
        self._shown = ""  # all that the newest observation said

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split in shuffled order."""
        return list(self._tasks[split])

    def max_turns(self, task: Task) -> int:
        """Number of turns after which the episode is cut."""
        return self._options.max_turns

    def reset(self, task: Task) -> str:
        """Start an episode of a task by its seed, or by its place in the server's split."""
        self._reward, self._shown = None, ""
        answer = self._session.reset(self._tasks[task.split][task])
        self._shown = text_of(answer.observation, self._options.observation)
        self._reward = RewardCount(self._options.reward, self._options.reward_range)
        return cut(self._shown, self._options.prompt_chars) if self._shown.strip() else BEGUN

    def step(self, action: str) -> StepResult:
        """Play one action; one that is none, here or for the server, is answered by "Invalid action".

        Raises:
          RuntimeError: no episode has begun, or the last one is over.
          EnvFault: the session has gone, or the server's answer cannot be used.
        """
        count = self._reward
        if count is None:
            raise RuntimeError("step outside an episode: call reset first")
        try:
            answer = self._session.step(self._form.read(action))
        except (NotAnAction, Refused) as error:
            return StepResult(observation=f"Invalid action: {error}.", done=False, reward=0.0)
        count.add(answer.reward)
        text = text_of(answer.observation, self._options.observation)
        observation = new_of(text, self._shown) if self._options.only_new else text
        self._shown = text
        if answer.done:
            self._reward = None
        return StepResult(
            observation=cut(observation, self._options.observation_chars),
            done=answer.done,
            reward=count.value if answer.done else 0.0,
        )

    def reward_at_limit(self) -> float:
        """The reward that the episode has earned so far."""
        return 0.0 if self._reward is None else self._reward.value

    def expert(self, task: Task) -> Demonstration | None:
        """A hub brings no experts."""
        return None

    def tries(self, task: Task, rng: np.random.Generator) -> str:
        """An action that could be meant, drawn from the schema or from the option `examples`."""
        return self._form.tries(rng)

    def most_instances(self, wanted: int) -> int:
        """How many sessions the server lets this process have beside each other, up to `wanted`."""
        sessions = [Session(self._options) for _ in range(wanted)]
        try:
            return next((number for number, one in enumerate(sessions) if not one.probe()), wanted)
        finally:
            for one in sessions:
                one.close()

    def close(self) -> None:
        """Close the socket; safe to call twice, and while another thread waits for an answer."""
        self._session.close()


def task_table(server: Server, options: OpenEnvOptions) -> dict[str, dict[Task, dict[str, Any]]]:
    """The tasks of every split in their order, each with what a reset is told."""
    asked = (options.train_tasks, options.dev_tasks, options.test_tasks)
    counts = [known if own is None else own for own, known in zip(asked, SEEDS, strict=True)]
    if not server.splits:
        families = ["seed"]
        by_seed = {split: seed_tasks(families, counts, split, options.seed) for split in SPLITS}
        return {split: {task: {"seed": seed_of(task)} for task in by_seed[split]} for split in SPLITS}
    table = {}
    for place, (split, rows) in enumerate(_listed(server, counts).items()):
        order = stream("openenv order", options.seed, place).permutation(len(rows))[: asked[place]]
        table[split] = {
            Task(id=f"{name}/{index}", split=split, family=name): {"split": name, "index": index}
            for name, index in (rows[number] for number in order)
        }
    return table


def _listed(server: Server, counts: Sequence[int]) -> dict[str, list[tuple[str, int]]]:
    """The server's tasks by our splits, as its splits' names and their places in them.

    Without any of train, its first split is train. Without any of dev or test, the end of train is, at most a
    quarter of it.
    """
    rows: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for one in server.splits:
        rows[one.split] += [(one.name, index) for index in range(one.count)]
    if not rows["train"]:
        first = next((split for split in SPLITS if rows[split]), "train")
        rows |= {"train": rows[first], first: []} if first != "train" else {}
    for place, split in enumerate(SPLITS[1:], start=1):
        taken = min(counts[place], len(rows["train"]) // 4)
        if not rows[split] and taken:
            rows[split], rows["train"] = rows["train"][-taken:], rows["train"][:-taken]
    return rows
