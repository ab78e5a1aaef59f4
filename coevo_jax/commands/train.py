"""Train, or go on with an interrupted run.

python -m launch.train CONFIG.yaml [key.sub=value ...]
python -m launch.train --resume runs/NAME
python -m launch.train --auto-resume CONFIG.yaml [key.sub=value ...]
python -m launch.train --fork runs/NAME CONFIG.yaml [key.sub=value ...]

--auto-resume is what launchers use: the same command starts the run and, after a preemption, goes on with it.
--fork begins with another run's warm start, so that methods are compared from the same agents and one warm
start is paid for; nothing that it depends on may differ.
--profile 10:13 with any of them traces the optimizer steps 10, 11 and 12, as metrics.jsonl counts them, into
runs/NAME/profile/PHASE/.

SIGTERM and Ctrl-C end it after the optimizer step or block of tokens under way, with what is done committed,
and the exit code is 143 or 130; a second one ends it at once.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.cli import explain
from coevo_jax.config.help import help_text
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.registry import ENVIRONMENTS
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


class _Help(argparse.Action):
    """Print the usage and every option of the config."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.print_usage()
        print(help_text({name: spec.options for name, spec in ENVIRONMENTS.items()}))
        parser.exit()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.train", add_help=False)
    parser.add_argument("config", nargs="?", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    parser.add_argument("--resume", metavar="RUN", help="folder of an interrupted run")
    parser.add_argument(
        "--auto-resume", action="store_true", help="go on with this config's run where its folder exists"
    )
    parser.add_argument("--fork", metavar="RUN", help="folder of a run whose warm start this one begins with")
    parser.add_argument(
        "--profile", metavar="FIRST:END", help="trace these optimizer steps, END not included"
    )
    parser.add_argument("-h", "--help", nargs=0, action=_Help)
    args = parser.parse_args(argv)
    if (args.config is None) == (args.resume is None):
        parser.print_usage(sys.stderr)
        raise ConfigError("give either a config file or --resume RUN")
    if args.auto_resume and args.resume:
        raise ConfigError("--auto-resume finds the run by its config: give a config file, not --resume RUN")
    if args.fork and args.resume:
        raise ConfigError("--fork starts a run: give a config file, not --resume RUN")
    args.profile = traced_steps(args.profile)
    return args


def traced_steps(words: str | None) -> range:
    """The optimizer steps that a slice like "10:13" names, END not included; none where none are given.

    Raises:
      ConfigError: not two numbers, counted from 1, with the first below the second.
    """
    if words is None:
        return range(0)
    found = re.fullmatch(r"(\d+):(\d+)", words)
    steps = range(int(found[1]), int(found[2])) if found else range(0)
    if not steps or steps[0] < 1:
        raise ConfigError(
            f"--profile: found '{words}', expected FIRST:END with 1 <= FIRST < END, such as 10:13 for the "
            "optimizer steps 10, 11 and 12 of metrics.jsonl"
        )
    return steps


def open_or_create(args: argparse.Namespace, processes: Processes) -> Run:
    """The run of a command line, opened by all of its processes together, or refused to all."""
    if args.resume:
        folder = Path(args.resume)
        require_same_start(processes, read_config(folder), {"resume": folder})
        return open_run(folder, processes)
    config = load_config(args.config, args.overrides)
    options = {"auto-resume": args.auto_resume, "fork": args.fork}
    require_same_start(processes, config, options)
    config = resolve_budget(config, processes)
    folder = run_folder(config)
    if args.auto_resume and processes.once("auto-resume", lambda: is_run_of(folder, config)):
        return open_run(folder, processes)
    check_world(config)
    _check_server(config, processes)
    if args.fork:
        run = fork_run(Path(args.fork), config, processes)
        CONSOLE.print(f"begun with {args.fork}: {', '.join(run.environment()['forked']['phases'])}")
        return run
    return create_run(config, processes)


def _check_server(config: Config, processes: Processes) -> None:
    if config.rollout.server is not None and processes.count > 1:
        raise ConfigError(
            f"rollout.server: expected one process, found {processes.count}; several hosts play on their own "
            "devices"
        )
    check_server(config)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    start_distributed()
    with Processes(explain) as processes:
        introduce(processes)
        train(args, processes)


def introduce(processes: Processes) -> None:
    """Say in each host's log who this is, and by which words JAX would report the end of process 0."""
    if processes.count == 1:
        return
    first = processes.once("host", lambda: processes.host)
    print(
        f"process {processes.index} of {processes.count} on {processes.host}; process 0 on {first} writes "
        'the run and its progress (JAX calls it "the leader task")',
        file=sys.stderr,
        flush=True,
    )


def train(args: argparse.Namespace, processes: Processes) -> None:
    """Open the run and play it; process 0 shows and writes what comes out."""
    CONSOLE.quiet = not processes.leads
    run = open_or_create(args, processes)
    run.traced_steps = args.profile
    try:
        with run.stop:
            results = coevolve(run)
    except Stopped:
        run.close()  # all processes stop at the same place
        processes.wait("stopped")  # what is said next ends the others
        raise
    except BaseException:
        if processes.count == 1:  # with others, the checkpoints would wait for them
            run.close()
        raise
    run.close()
    if processes.leads:
        print_run(results, CONSOLE)
        report = write_report(run.folder)
        CONSOLE.print(f"\nreport: {report}\nresults: {run.folder / 'results.json'}", soft_wrap=True)
