"""The phases of a run. Each can be repeated: it reads committed files, works, and commits again.

Killed anywhere, a phase goes on from its last commit and ends in the same numbers.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coevo_jax.agents import leave_warm_start
from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import Config, of_round
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from coevo_jax.data.experts import Experts, expert_texts, imported_texts, load_experts, load_imported
from coevo_jax.data.interchange import Conversation, Problems, read_conversations
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.envs.env import Env, PreparesExperts, Task
from coevo_jax.files import write_whole
from coevo_jax.learning.optimizer import cosine_rate
from coevo_jax.models.lora import init_trained
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.progress import CONSOLE, Stopwatch, say
from coevo_jax.rollout.phase import block_paths, finish_roll_out, roll_out, sample_blocks, task_blocks
from coevo_jax.run_folder.budget import asked_of
from coevo_jax.run_folder.run import Run
from coevo_jax.sampling.engine import Sampling
from coevo_jax.schedule import Phase, explored_together
from coevo_jax.training.learn_phase import learn
from coevo_jax.training.optimize import Course, optimize
from coevo_jax.training.pace import Pace
from coevo_jax.training.plan_file import PLANS, learned_tokens, write_plan
from coevo_jax.world import (
    BACKBONE_DIR,
    EXPERTS_FILE,
    IMPORTED_FILE,
    TOKENIZER_DIR,
    World,
    embedded_tokens,
    longest_trajectory,
    open_env,
    tasks_of,
    tokenizer_folder,
)


def prepare(run: Run) -> None:
    """Gather the experts, train or copy the tokenizer, render the experts to tokens: process 0, for all."""
    if run.manifest.record("prepare") is None:
        if run.leads:
            _prepare(run)
        else:
            run.follow()


def _prepare(run: Run) -> None:
    config, watch = run.config, Stopwatch()
    env = open_env(config)()
    try:
        tasks = {task.id: task for task in _expert_tasks(run, env)}
        if isinstance(env, PreparesExperts):
            env.prepare_experts(list(tasks.values()), watch.counter("experts"))
        folder = run.folder / TOKENIZER_DIR
        imported = _imported_rows(run)
        source = tokenizer_folder(config)
        if source is None:
            # The warm start's alone: runs that explore and runs that do not begin with the same tokenizer.
            if imported is None:
                imitated = tasks_of(env, "train", config.warm_start.tasks, "warm_start.tasks")
                texts = expert_texts(env, imitated)
            else:
                texts = imported_texts(imported, env.system_prompt)
            tokenizer = train_tokenizer(texts, config.tokenizer.vocab_size, folder)
        else:
            tokenizer = load_tokenizer(source)
            save_tokenizer(tokenizer, folder)
        chat = chat_format(tokenizer)
        longest, prompt = longest_trajectory(config), env.system_prompt
        experts = load_experts(env, chat, list(tasks.values()), max_tokens=longest)
        extra = None if imported is None else load_imported(imported, chat, prompt, max_tokens=longest)
    finally:
        env.close()
    _require_experts(config, len(tasks), experts, extra)
    paths = [run.folder / EXPERTS_FILE]
    write_trajectories(paths[0], experts.trajectories)
    if extra is not None:
        paths.append(run.folder / IMPORTED_FILE)
        write_trajectories(paths[1], extra.trajectories)
    imitable = [*experts.trajectories, *(extra.trajectories if extra else ())]
    lengths = [len(expert.tokens) for expert in imitable]
    model = Transformer(config.model, embedded_tokens(config, chat))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    records = {
        "experts": len(experts.trajectories),
        "experts_missing": experts.missing,
        "experts_too_long": experts.too_long,
        "expert_tokens": {"min": min(lengths), "mean": float(np.mean(lengths)), "max": max(lengths)},
        "vocab_size": chat.vocab_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
    }
    if config.model.lora is not None:
        adapters = jax.eval_shape(lambda: init_trained(model, jax.random.key(0)))
        records["adapter_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    if extra is not None:
        records |= {"imported": len(extra.trajectories), "imported_too_long": extra.too_long}
    record = replace(run.begin("prepare"), records=records, seconds=watch.seconds)
    files = [*paths, *(entry for entry in folder.iterdir() if entry.is_file()), *_keep_descriptions(run)]
    run.commit(record, files=files, states_changed=False, finished=True)
    say(
        record,
        f"{len(lengths)} experts of {min(lengths)}-{max(lengths)} tokens, "
        f"{_parameter_words(records)}, vocabulary {chat.vocab_size}",
    )


def _keep_descriptions(run: Run) -> list[Path]:
    """Copy what describes the checkpoint a run begins with: an export describes itself in the same way."""
    if run.config.model.path is None:
        return []
    source, folder = Path(run.config.model.path), run.folder / BACKBONE_DIR
    folder.mkdir(exist_ok=True)
    names = [name for name in ("config.json", "generation_config.json") if (source / name).is_file()]
    for name in names:
        write_whole(folder / name, (source / name).read_bytes())
    return [folder / name for name in names]


def _parameter_words(records: dict[str, Any]) -> str:
    words = f"{records['parameters']:,} parameters"
    adapters = records.get("adapter_parameters")
    return words if adapters is None else f"{words} and {adapters:,} of each agent's adapters"


def _imported_rows(run: Run) -> list[Conversation] | None:
    """The rows of warm_start.data that are imitated; None where the environment's experts are."""
    config = run.config.warm_start
    if config.data is None:
        return None
    problems = Problems(config.data_errors)
    rows = read_conversations(config.data, None, None, problems)
    start, stop = slice_bounds(config.tasks)
    selected = rows[start:stop]
    if not selected:
        raise ConfigError(f"warm_start.tasks: {config.tasks!r} selects none of the {len(rows)} rows of data")
    CONSOLE.print(
        f"{config.data}: {len(selected)} of {len(rows)} rows, {problems.count} broken rows left out"
    )
    for problem in problems.first:
        CONSOLE.print(f"  {problem}")
    return selected


def _require_experts(config: Config, tasks: int, experts: Experts, imported: Experts | None) -> None:
    found, source = (experts, config.env.name) if imported is None else (imported, config.warm_start.data)
    if not found.trajectories:
        of = f"{tasks} tasks has an expert" if imported is None else "the rows is a solution"
        raise ConfigError(
            f"{source}: none of {of} that fits "
            f"({found.missing} missing, {found.too_long} longer than batch.row_length)"
        )


def _expert_tasks(run: Run, env: Env) -> list[Task]:
    config = run.config
    tasks: list[Task] = []
    if config.warm_start.data is None:
        tasks += tasks_of(env, "train", config.warm_start.tasks, "warm_start.tasks")
    if config.rounds > 0:
        for where in config.explore.tasks:
            tasks += tasks_of(env, "train", where, "explore.tasks")
    tasks_of(env, config.evaluate.split, config.evaluate.tasks, "evaluate.tasks")  # refuse it now, not later
    return tasks


def warm_start(run: Run, world: World, phase: Phase) -> None:
    """SFT of one shared checkpoint on the experts; both agents start from it, or from adapters of it."""
    config = run.config.warm_start
    record = run.begin(phase.name)
    if config.data is None:
        tasks = tasks_of(world.env, "train", config.tasks, "warm_start.tasks")
        experts = [world.experts[task.id] for task in tasks if task.id in world.experts]
    else:
        experts = read_trajectories([run.folder / IMPORTED_FILE])
    plan = pack_sft(
        experts, batch=run.config.batch, pad_id=world.chat.pad_id, seed=phase.seed(run.config.seed)
    )
    plan_path = run.folder / PLANS / "warm-start.json"
    seed, steps = phase.seed(run.config.seed), config.epochs * len(plan.steps)
    if run.leads:
        source = "expert" if config.data is None else "imported"
        sides = [{"source": source, "task_id": one.task_id, "sample": one.sample} for one in experts]
        write_plan(plan_path, plan, phase=phase.name, sides=sides, steps=steps, seed=seed, beta=None)
    course = Course(
        plan=plan,
        batches_at=lambda _position, _state: plan.batches,
        steps=steps,
        beta=1.0,
        rate=lambda step, steps: cosine_rate(step, steps, config.learning_rate, config.warmup_fraction),
        files=lambda: [plan_path],
    )
    pace = Pace(world.warm_learner, plan, world.mesh)
    record = optimize(run, world, world.warm_programs, phase, record, course, pace)
    leave_warm_start(run, world)
    records = {
        "experts": len(experts),
        "checkpoint": run.next_checkpoint,
        "padding": plan.padding,
        "learned_tokens": learned_tokens(plan, steps, seed),
    }
    record = replace(record, records=records)
    files = course.files()
    run.commit(record, files=files, states_changed=True, finished=True, with_base=bool(run.frozen))
    words = f"{len(experts)} experts, {record.position} steps, padding {plan.padding:.1%}"
    say(record, ", ".join(filter(None, (words, pace.words()))))


def explore(run: Run, world: World, phase: Phase) -> None:
    """Roll out an agent on the training tasks, block by block; or both agents, interleaved.

    Nothing is learned between the two explorations of a round's start, so the first plays the episodes of
    both and leaves the other only to be summed up.
    """
    config = run.config.explore
    where = of_round(config.tasks, phase.round)
    tasks = tasks_of(world.env, "train", where, "explore.tasks")
    sampling = Sampling(
        root=jax.random.key(run.config.seed),
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
    )
    asked = asked_of(run.config, phase, "explored_tokens")
    blocks_of = task_blocks if asked is None else sample_blocks
    blocks = blocks_of(tasks, config.samples, config.block_tasks)
    together = explored_together(run.config, phase) or (phase,)
    if phase == together[0]:
        roll_out(run, world, together, blocks, sampling=sampling, by_server=True, asked=asked)
    else:
        shards = block_paths(run, phase, len(blocks))
        finish_roll_out(run, world, phase, run.begin(phase.name), shards)


def evaluate(run: Run, world: World, phase: Phase) -> None:
    """Play an agent greedily on held-out tasks."""
    config, size = run.config.evaluate, run.config.explore.block_tasks
    tasks = tasks_of(world.env, config.split, config.tasks, "evaluate.tasks")
    sampling = Sampling(root=jax.random.key(run.config.seed), temperature=0.0)
    roll_out(run, world, [phase], task_blocks(tasks, 1, size), sampling=sampling)


PHASES: dict[str, Callable[[Run, World, Phase], None]] = {
    "warm_start": warm_start,
    "explore": explore,
    "learn": learn,
    "evaluate": evaluate,
}
