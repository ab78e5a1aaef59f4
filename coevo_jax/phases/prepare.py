"""What a run needs before it learns: experts, tokenizer, and the experts as tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coevo_jax.config.check import slice_bounds
from coevo_jax.config.check_branches import needing_experts
from coevo_jax.config.check_hints import hinting_phases
from coevo_jax.config.check_judge import judges_experts
from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer, save_tokenizer, tokenizer_files, train_tokenizer
from coevo_jax.data.experts import (
    Experts,
    best_of_tasks,
    expert_texts,
    imported_texts,
    load_experts,
    load_imported,
)
from coevo_jax.data.interchange import Conversation, Problems, read_conversations, to_demonstration
from coevo_jax.data.parquet import write_trajectories
from coevo_jax.envs.env import Env, PreparesExperts, Task
from coevo_jax.files import write_whole
from coevo_jax.models.lora import init_trained
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.phases.world import (
    BACKBONE_DIR,
    EXPERTS_FILE,
    IMPORTED_FILE,
    TOKENIZER_DIR,
    check_held,
    embedded_tokens,
    longest_trajectory,
    open_env,
    tasks_of,
    tokenizer_folder,
)
from coevo_jax.progress import CONSOLE, Stopwatch, say
from coevo_jax.run_folder.run import Run


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
        imported, best_only = _imported_rows(run), config.warm_start.best_of_task
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
        check_held(config, chat)
        longest, prompt = longest_trajectory(config), env.system_prompt
        stand_ins = {row.id: to_demonstration(row)[0] for row in imported or () if best_only}
        experts = load_experts(env, chat, list(tasks.values()), max_tokens=longest, stand_ins=stand_ins)
        _require_explored_experts(config, env, experts)
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
        "deterministic": env.deterministic,  # of whose tasks pairs are refused that contradict each other
        "vocab_size": chat.vocab_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
    }
    if config.model.lora is not None:
        adapters = jax.eval_shape(lambda: init_trained(model, jax.random.key(0)))
        records["adapter_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    if extra is not None:
        records |= {"imported": len(extra.trajectories), "imported_too_long": extra.too_long}
    record = replace(run.begin("prepare"), records=records, seconds=watch.seconds)
    files = [*paths, *tokenizer_files(folder), *_keep_descriptions(run)]
    run.commit(record, files=files, finished=True)
    say(
        record.name,
        record.seconds,
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
    read = len(rows)
    rows = best_of_tasks(rows) if config.best_of_task else rows
    selected = rows[start:stop]
    if not selected:
        which = "rows that are the best of their task" if config.best_of_task else "rows"
        raise ConfigError(
            f"warm_start.tasks: {config.tasks!r} selects none of the {len(rows)} {which} of data"
        )
    CONSOLE.print(f"{config.data}: {len(selected)} of {read} rows, {problems.count} broken rows left out")
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


def _require_explored_experts(config: Config, env: Env, experts: Experts) -> None:
    """Refuse a round without any expert where phases play from experts; say how many tasks have none."""
    phases = (
        [*needing_experts(config), *hinting_phases(config), *judges_experts(config)] if config.rounds else []
    )
    known = {expert.task_id for expert in experts.trajectories}
    for where in dict.fromkeys(config.explore.tasks) if phases else ():
        tasks = tasks_of(env, "train", where, "explore.tasks")
        missing = sum(task.id not in known for task in tasks)
        if missing == len(tasks):
            raise ConfigError(
                f"{env.name}: none of the {missing} tasks of explore.tasks {where} has an expert that fits, "
                f"and {' and '.join(phases)} would do nothing"
            )
        if missing:
            CONSOLE.print(
                f"{' and '.join(phases)}: {missing} of the {len(tasks)} tasks of {where} have no expert that "
                "fits, and are left out"
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
