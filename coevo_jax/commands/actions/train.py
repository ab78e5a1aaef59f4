"""Open or create a run and play it, in all of its processes."""

import argparse
import sys
from pathlib import Path

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.cli import explain
from coevo_jax.commands.configs import read_played_config
from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.hosts import allocator
from coevo_jax.hosts.distributed import start_distributed
from coevo_jax.hosts.processes import Processes
from coevo_jax.hosts.same_start import require_same_start
from coevo_jax.phases.serving import check_server
from coevo_jax.phases.world import check_world
from coevo_jax.progress import CONSOLE
from coevo_jax.report.html import write_report
from coevo_jax.report.terminal import print_run
from coevo_jax.run_folder.budget import resolve_budget
from coevo_jax.run_folder.folder import is_run_of, read_config, run_folder
from coevo_jax.run_folder.fork import fork_run
from coevo_jax.run_folder.run import Run, create_run, open_run
from coevo_jax.run_folder.stopping import Stopped


def open_or_create(args: argparse.Namespace, processes: Processes) -> Run:
    """The run of a command line, opened by all of its processes together, or refused to all."""
    if args.resume:
        folder = Path(args.resume)
        require_same_start(processes, read_config(folder), {"resume": folder})
        return open_run(folder, processes)
    config = read_played_config(args.config, args.overrides)
    options = {"auto-resume": args.auto_resume, "fork": args.fork}
    require_same_start(processes, config, options)
    config = resolve_budget(config, processes)
    folder = run_folder(config)
    if args.auto_resume and processes.once("auto-resume", lambda: is_run_of(folder, config)):
        return open_run(folder, processes)
    check_world(config)
    _check_server(config, processes)
    if args.fork:
        run = fork_run(Path(args.fork), config, processes, learned=True)
        _tell_fork(run)
        return run
    return create_run(config, processes)


def _tell_fork(run: Run) -> None:
    """What a new run has taken over, and what of the other one was damaged."""
    forked = run.environment()["forked"]
    words = f"begun with {forked['from']}: {', '.join(forked['phases'])}"
    running = run.manifest.running
    words += f" (under way, {running.position} of it done)" if running is not None else ""
    CONSOLE.print(words, soft_wrap=True)
    if "left" in forked:
        CONSOLE.print(f"warning: not all could be taken over: {forked['left']}", soft_wrap=True)


def _check_server(config: Config, processes: Processes) -> None:
    if config.rollout.server is not None and processes.count > 1:
        raise ConfigError(
            f"rollout.server: expected one process, found {processes.count}; several hosts play on their own "
            "devices"
        )
    check_server(config)


def train_together(args: argparse.Namespace) -> None:
    """Join the other processes, where there are any, and train."""
    start_distributed()
    with Processes(explain) as processes:
        introduce(processes)
        train(args, processes)


def introduce(processes: Processes) -> None:
    """Say in each host's log who this is, and where process 0 is."""
    if processes.count == 1:
        return
    first = processes.once("host", lambda: processes.host)
    print(
        f"process {processes.index} of {processes.count} on {processes.host}; process 0 on {first} writes "
        "the run and its progress",
        file=sys.stderr,
        flush=True,
    )


def train(args: argparse.Namespace, processes: Processes) -> None:
    """Open the run and play it; process 0 shows and writes what comes out."""
    CONSOLE.quiet = not processes.leads
    if allocator.keeps_freed_memory():
        CONSOLE.print(allocator.WORDS)
    run = open_or_create(args, processes)
    run.traced_steps = args.profile
    try:
        with run.stop:
            results = coevolve(run)
    except Stopped:
        run.close()  # all processes stop at the same place
        processes.wait("stopped")  # what is said next ends the others
        raise
    except BaseException as error:
        if isinstance(error, OSError | KeyboardInterrupt):
            error.add_note(f"what was committed is intact: continue with --resume {run.folder}")
        if processes.count == 1:  # with others, the checkpoints would wait for them
            run.close()
        raise
    run.close()
    if processes.leads:
        print_run(results, CONSOLE)
        report = write_report(run.folder)
        CONSOLE.print(f"\nreport: {report}\nresults: {run.folder / 'results.json'}", soft_wrap=True)
