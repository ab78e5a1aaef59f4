"""Expert turns written through the same path as `play`, with its tokens given instead of drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.envs.env import StepResult, Task, parse_response
from coevo_jax.envs.pool import EnvPool
from coevo_jax.models.transformer import Params
from coevo_jax.rollout.play import play
from coevo_jax.sampling.engine import Engine
from coevo_jax.trajectory import Demonstration, Trajectory


@dataclass(kw_only=True, eq=False)
class _Replay:
    """An environment that answers as a demonstration says, whatever the action."""

    demonstration: Demonstration
    system_prompt: str
    name: str = "replay"
    deterministic: bool = True
    played: int = 0

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(id=self.demonstration.task_id, split=split, family="replay")]

    def max_turns(self, task: Task) -> int:
        return len(self.demonstration.turns)

    def reset(self, task: Task) -> str:
        self.played = 0
        return self.demonstration.prompt

    def step(self, action: str) -> StepResult:
        turn = self.demonstration.turns[self.played]
        self.played += 1
        done = self.played == len(self.demonstration.turns)
        return StepResult(observation=turn.observation, done=done, reward=self.demonstration.reward)

    def reward_at_limit(self) -> float:
        return self.demonstration.reward

    def expert(self, task: Task) -> Demonstration | None:
        return self.demonstration

    def close(self) -> None:
        return


def force(
    engine: Engine, params: Params, chat: ChatFormat, system_prompt: str, demonstration: Demonstration
) -> Trajectory:
    """Write an expert's turns through the path of `play`: its tokens are given instead of drawn.

    The result has the tokens and the mask of `data.chat.render`, and the log-probabilities that `params` give
    to the expert. A demonstration longer than the cache ends with `token_limit`.

    Raises:
      ValueError: a turn has no action, or there is no turn: nothing an expert could have played.
    """
    responses = [turn.response for turn in demonstration.turns]
    if not responses or any(parse_response(response) is None for response in responses):
        raise ValueError(f"demonstration of task {demonstration.task_id}: every turn needs an action")
    replay = _Replay(demonstration=demonstration, system_prompt=system_prompt)
    with EnvPool(lambda: replay, workers=1, step_timeout=60.0) as pool:
        [trajectory], _ = play(
            engine,
            params,
            pool,
            chat,
            replay.tasks("train"),
            agent="expert",
            samples=1,
            temperature=0.0,
            top_p=1.0,
            seed=0,
            phase=0,
            script={demonstration.task_id: [chat.response_ids(response) for response in responses]},
        )
    return trajectory
