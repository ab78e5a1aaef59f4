"""Questions: an agent answers what a builder asks of turns of episodes, each in one turn of its own."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coevo_jax.config.recipe import AskOptions
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs.env import Task
from coevo_jax.learning.train_state import Agents
from coevo_jax.methods.questions import Question
from coevo_jax.phases.explore import Share, exploring, roll_out
from coevo_jax.phases.material import built_on_tasks, of_some_tasks
from coevo_jax.phases.world import World
from coevo_jax.progress import say
from coevo_jax.recipe import Phase
from coevo_jax.rollout import QuestionSet, TaskQuestion
from coevo_jax.rollout.replay import Asked
from coevo_jax.run_folder.budget import Budget
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import About, count_endings


@dataclass(frozen=True, kw_only=True)
class QuestionBlock:
    """The questions answered between two commits: those of some tasks."""

    questions: Sequence[TaskQuestion]
    samples: int = 1  # each is answered once

    def cast(self, share: Share, phase: Phase, weights: Any, adapter: int) -> QuestionSet:
        """The questions of a process to an agent."""
        return QuestionSet(
            agent=phase.agent,
            weights=weights,
            adapter=adapter,
            questions=share(self.questions),
            phase=phase.index,
        )


def ask(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Let an agent answer the questions that the recipe's builder asks of the round's episodes.

    Questions are a function of committed collections, so a phase that goes on asks the same ones.
    """
    config, options = run.config.explore, phase.asking
    assert options is not None  # a phase that asks has them
    tasks, made = built_on_tasks(run, world, phase, options)
    questions = task_questions(made, tasks, world.env.system_prompt, options, phase.name)
    sampling = exploring(run, options.temperature)
    roll_out(
        run,
        world,
        agents,
        [phase],
        question_blocks(questions, config.block_tasks),
        sampling=sampling,
        by_server=True,
        known={"questions": len(questions)},
        finish=_finish,
    )
    return agents


def task_questions(
    made: Iterable[Question], tasks: Mapping[str, Task], system: str, options: AskOptions, where: str
) -> list[TaskQuestion]:
    """The questions in the order of tasks, each with its number among its task's.

    Raises:
      ConfigError: one is about a turn that its episode does not have, or a task that the round does not play.
    """
    questions: list[TaskQuestion] = []
    asked: Counter[str] = Counter()
    for question in sorted(made, key=lambda question: question.trajectory.task_id):
        one, turn = question.trajectory, question.turn
        collection = one.collection or one.agent
        name = f"{collection}/{one.task_id}/{one.sample}"
        if not 0 <= turn < len(one.turns):
            raise ConfigError(
                f"{where}: {options.question}: found a question about turn {turn} of {name}, expected one of "
                f"its {len(one.turns)} turns, counted from 0"
            )
        if one.task_id not in tasks:
            raise ConfigError(f"{where}: {options.question}: {name} is of no task that the round explores")
        about = About(collection=collection, sample=one.sample, turn=turn)
        questions.append(
            TaskQuestion(
                task=tasks[one.task_id],
                asked=Asked(system_prompt=system, text=question.text, about=about),
                number=asked[one.task_id],
            )
        )
        asked[one.task_id] += 1
    return questions


def question_blocks(questions: Sequence[TaskQuestion], size: int) -> list[QuestionBlock]:
    """Blocks that hold all questions of `size` tasks; one without any where there are none."""
    parts = of_some_tasks(questions, lambda question: question.task, size)
    return [QuestionBlock(questions=part) for part in parts]


def _finish(
    run: Run,
    world: World,
    agents: Agents,
    phase: Phase,
    record: PhaseRecord,
    shards: Sequence[Path],
    others: Sequence[Path],
    budget: Budget,
) -> None:
    """Count a phase's answers and commit it; nothing of what an episode amounts to can be said of them."""
    found: dict[str, Any] = run.processes.once("answers", lambda: _counts(shards))
    records = record.records | found | {"checkpoint": run.manifest.checkpoint}
    record = replace(record, records=records)
    run.commit(record, files=[*shards, *others], finished=True)
    answered = found["endings"].get("answered", 0)
    words = f"{records['questions']} questions, {answered} answered to the end"
    say(record.name, record.seconds, words)


def _counts(shards: Sequence[Path]) -> dict[str, Any]:
    answers = read_trajectories(list(shards))
    endings = {ending: count for ending, count in count_endings(answers).items() if count}
    return {"endings": endings, "agent_tokens": sum(answer.written_tokens for answer in answers)}
