"""A method as data: the phases of a round over named agents and named collections of trajectories.

    - explore: {agent: target, into: tried}       an agent plays the round's tasks
    - branch:  {agent: target, of: tried, ...}    an agent plays on from the middle of episodes
    - ask:     {agent: target, of: tried, ...}    an agent answers questions about episodes
    - judge:   {of: tried, into: judged}          a discriminator learns to tell episodes' turns from experts'
    - learn:   {agent: target, sources: [...]}    an agent learns from what builders make of collections
    - evaluate: {agent: target}                   an agent plays held-out tasks

The first agent that a recipe names is its lead: the one a run is about, which the warm start trains, whose
costs budgets set, and which tables compare.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from coevo_jax.config.adapt import AdaptOptions
from coevo_jax.config.beside import BesideOptions
from coevo_jax.config.hints import HintOptions
from coevo_jax.config.judge import JUDGE, JudgeOptions
from coevo_jax.config.recipe_built import AskOptions, BranchOptions, Built, Name, builder_name
from coevo_jax.config.strict import StrictModel

LossTerms = str | dict[str, float]
LEAD = "target"  # of a recipe without phases


class KindWeights(StrictModel):
    """Weights of a kind of pair."""

    dpo: float = Field(default=0.5, ge=0)
    """Weight of the preference loss."""
    sft: float = Field(default=0.0, ge=0)
    """Weight of the SFT term on the chosen side."""
    loss: LossTerms | None = None
    """Preference loss or mixture of this kind of pair; null takes the agent's."""


class _Source(Built):
    of: tuple[Name, ...] = Field(min_length=1)
    """The collections that are learned from."""


class PairSource(KindWeights, _Source):
    """Pairs that a builder makes of collections."""

    pairs: str
    """Builder: a name of coevo_jax.methods, or your own as package.module:function."""
    kind: Name | None = None
    """What these pairs are called in logs and tables; null is the builder's name."""

    @property
    def builder(self) -> tuple[str, str]:
        """The table that has it, and its name."""
        return "pairs", self.pairs

    @property
    def label(self) -> str:
        return self.kind or builder_name(self.pairs)

    @property
    def weights(self) -> KindWeights:
        return KindWeights(dpo=self.dpo, sft=self.sft, loss=self.loss)


class ImitationSource(_Source):
    """Trajectories that are imitated without a pair."""

    imitate: str
    """Builder: a name of coevo_jax.methods, or your own as package.module:function."""
    weight: float = Field(gt=0)
    """Weight of the SFT term."""

    @property
    def builder(self) -> tuple[str, str]:
        """The table that has it, and its name."""
        return "imitate", self.imitate

    @property
    def label(self) -> str:
        return builder_name(self.imitate)


class ReinforceSource(_Source):
    """Trajectories whose turns become likelier or rarer by a signed weight each: their advantage."""

    reinforce: str
    """Builder: a name of coevo_jax.methods, or your own as package.module:function."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the clipped surrogate."""

    @property
    def builder(self) -> tuple[str, str]:
        """The table that has it, and its name."""
        return "reinforce", self.reinforce

    @property
    def label(self) -> str:
        return builder_name(self.reinforce)


def _which(keys: dict[str, str]) -> Any:
    """Tells the kinds of mappings apart by the one key that each alone has.

    Their tags begin with "=", by which `strict.validate` knows that they are no keys.
    """

    def tag(found: Any) -> str | None:
        has = found if isinstance(found, dict) else vars(found) if isinstance(found, StrictModel) else {}
        tags = [tag for key, tag in keys.items() if key in has]
        return tags[0] if len(tags) == 1 else None

    expected = f"a mapping with one of the keys {', '.join(keys)}"
    return Discriminator(tag, custom_error_type="kind", custom_error_message=expected)


Source = Annotated[
    Annotated[PairSource, Tag("=PairSource")]
    | Annotated[ImitationSource, Tag("=ImitationSource")]
    | Annotated[ReinforceSource, Tag("=ReinforceSource")],
    _which({"pairs": "=PairSource", "imitate": "=ImitationSource", "reinforce": "=ReinforceSource"}),
]


class ExploreOptions(StrictModel):
    """Options of a phase in which an agent plays."""

    agent: Name
    """Who plays."""
    into: Name | None = None
    """Collection of what is played; null is the agent's name."""
    mark: str = ""
    """Mark that the tasks are played under: a text in which {task} stands for the task; "" plays without."""
    hints: HintOptions | None = None
    """Suggestions before every turn, of the distorted actions of the tasks' experts; null plays without."""

    @property
    def collection(self) -> str:
        return self.into or self.agent


class LearnOptions(StrictModel):
    """Options of a phase in which an agent learns."""

    agent: Name
    """Who learns."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """What it learns from."""
    name: Name | None = None
    """Tells learnings of one agent apart in a round; null is the agent's name."""
    beside: BesideOptions | None = None
    """A weak model whose logits are mixed with the agent's (WMSS); null learns from the agent's alone."""

    @property
    def pairs(self) -> tuple[PairSource, ...]:
        return tuple(source for source in self.sources if isinstance(source, PairSource))

    @property
    def imitations(self) -> tuple[ImitationSource, ...]:
        return tuple(source for source in self.sources if isinstance(source, ImitationSource))

    @property
    def reinforcements(self) -> tuple[ReinforceSource, ...]:
        return tuple(source for source in self.sources if isinstance(source, ReinforceSource))

    @property
    def kinds(self) -> dict[str, KindWeights]:
        return {source.label: source.weights for source in self.pairs}


class EvaluateOptions(StrictModel):
    """Options of a phase in which an agent is evaluated."""

    agent: Name
    """Who is evaluated."""
    name: Name | None = None
    """Tells evaluations of one agent apart in a round; null is the agent's name, and what runs are compared
    by."""
    mark: str = ""
    """Mark that the tasks are played under: a text in which {task} stands for the task; "" plays without."""
    adapt: AdaptOptions | None = None
    """Lets a copy of the agent's weights follow the test episodes (ATENA); null leaves them as they are. What
    they learn is dropped with the evaluation."""

    @property
    def label(self) -> str:
        return self.name or self.agent


class ExplorePhase(StrictModel):
    """A phase of a recipe in which an agent plays."""

    explore: ExploreOptions

    @property
    def agent(self) -> str:
        return self.explore.agent

    @property
    def name(self) -> str:
        return f"explore_{self.explore.collection}"


class BranchPhase(StrictModel):
    """A phase of a recipe in which an agent plays on from the middle of episodes."""

    branch: BranchOptions

    @property
    def agent(self) -> str:
        return self.branch.agent

    @property
    def name(self) -> str:
        return f"branch_{self.branch.into}"


class AskPhase(StrictModel):
    """A phase of a recipe in which an agent answers questions."""

    ask: AskOptions

    @property
    def agent(self) -> str:
        return self.ask.agent

    @property
    def name(self) -> str:
        return f"ask_{self.ask.into}"


class JudgePhase(StrictModel):
    """A phase of a recipe in which the discriminator learns, and judges."""

    judge: JudgeOptions

    @property
    def agent(self) -> str:
        """Who learns, in logs: no agent, for it plays nothing."""
        return JUDGE

    @property
    def name(self) -> str:
        return f"judge_{self.judge.into}"


class LearnPhase(StrictModel):
    """A phase of a recipe in which an agent learns."""

    learn: LearnOptions

    @property
    def agent(self) -> str:
        return self.learn.agent

    @property
    def name(self) -> str:
        return f"learn_{self.learn.name or self.learn.agent}"


class EvaluatePhase(StrictModel):
    """A phase of a recipe in which an agent is evaluated."""

    evaluate: EvaluateOptions

    @property
    def agent(self) -> str:
        return self.evaluate.agent

    @property
    def name(self) -> str:
        return f"evaluate_{self.evaluate.label}"


RecipePhase = Annotated[
    Annotated[ExplorePhase, Tag("=ExplorePhase")]
    | Annotated[BranchPhase, Tag("=BranchPhase")]
    | Annotated[AskPhase, Tag("=AskPhase")]
    | Annotated[JudgePhase, Tag("=JudgePhase")]
    | Annotated[LearnPhase, Tag("=LearnPhase")]
    | Annotated[EvaluatePhase, Tag("=EvaluatePhase")],
    _which(
        {
            "explore": "=ExplorePhase",
            "branch": "=BranchPhase",
            "ask": "=AskPhase",
            "judge": "=JudgePhase",
            "learn": "=LearnPhase",
            "evaluate": "=EvaluatePhase",
        }
    ),
]
Recipe = tuple[RecipePhase, ...]
Kind = Literal["explore", "branch", "ask", "judge", "learn", "evaluate"]
