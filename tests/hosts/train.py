"""`python -m tests.hosts.train …`: launch.train with the toy environment, made to fail as a test wants.

COEVO_TEST_AT names a commit as "PHASE POSITION"; right after it, COEVO_TEST_DO is done by the process
COEVO_TEST_BY: "kill" (SIGKILL), "fail" (an error), "refuse" (a ConfigError), or "copy FOLDER" of the run.
"""

import os
import shutil
import signal

from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.registry import ENVIRONMENTS
from coevo_jax.hosts import processes
from coevo_jax.run_folder.run import Run
from tests.tiny import LETTERS


def act_at_commits() -> None:
    commit = Run.commit

    def commit_and_act(run: Run, *record, **options):
        done = commit(run, *record, **options)
        if os.environ["COEVO_TEST_AT"] == f"{done.name} {done.position}":
            run.settle()  # every process comes by here: what is acted on is permanent
            if int(os.environ["COEVO_TEST_BY"]) == run.processes.index:
                act(run, *os.environ["COEVO_TEST_DO"].split())
        return done

    setattr(Run, "commit", commit_and_act)  # noqa: B010 (a type checker takes a method's place for fixed)


def act(run: Run, what: str, folder: str = "") -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fail":
        raise RuntimeError("a disk caught fire")
    if what == "refuse":
        raise ConfigError("a disk is not the one that was asked for")
    shutil.copytree(run.folder, folder)


if __name__ == "__main__":
    ENVIRONMENTS["letters"] = LETTERS
    processes.LOST_AFTER, processes.BEAT = 25.0, 0.5  # a busy machine
    if "COEVO_TEST_AT" in os.environ:
        act_at_commits()
    run_command(main)
