"""Pairs that prefer an expert's step to the step of an agent at the same state."""

from collections.abc import Iterator

from coevo_jax.methods.material import Material, Preference, cut_turns
from coevo_jax.methods.own_steps import Same, own_steps


def expert_step_over(material: Material, *, same: Same = "action") -> Iterator[Preference]:
    """Pairs of the expert's step and the agent's own at every state of the expert, each from that step on.

    Implicit rewards of StepAgent (arXiv 2411.03817): at the state s of an expert's action a the agent does b,
    and learns -log sigmoid(beta log pi(a|s)/pi_ref(a|s) - beta log pi(b|s)/pi_ref(b|s)), with itself at the
    round's start as the reference. Both sides end with that step. The paper's text was not to be had: that
    this is its loss, and that equal steps are left out, is inferred.

    Args:
      same: which steps are equal: those of one action, or those of one text with its thoughts (inferred).
    """
    for step in own_steps(material):
        if step.differs(same):
            chosen, rejected = (cut_turns(one, step.turn + 1) for one in (step.expert, step.branch))
            yield Preference(chosen, rejected, step.turn, step.turn)
