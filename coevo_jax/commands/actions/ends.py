"""How a run may end before its last phase, for the user."""

from coevo_jax.commands.codes import FAILURE, SIGNALLED
from coevo_jax.phases.fault_watch import AgentBroken, EnvironmentBroken
from coevo_jax.run_folder.stopping import Stopped
from coevo_jax.training.watched import LearningDiverged


def explain_work(error: BaseException) -> tuple[int, str] | None:
    """The exit code of an end that a run foresees, and what it says; None for any other error."""
    if isinstance(error, LearningDiverged | AgentBroken | EnvironmentBroken):
        return FAILURE, str(error)
    if isinstance(error, Stopped):
        return SIGNALLED + error.signum, f"{error}; what is done is committed: continue with --resume"
    return None
