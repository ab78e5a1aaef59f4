"""Every option of a run, as frozen, typed and strict records.

`coevo_jax.config.reading` reads them from YAML, applies dotted overrides and refuses impossible combinations.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.judge import JudgeConfig
from coevo_jax.config.recipe import Recipe
from coevo_jax.config.strict import StrictModel

FORMAT = 2  # of a config; raised when what a key means changes
T = TypeVar("T")
TaskSlice = Annotated[str, Field(pattern=r"^\d*:\d*$")]
Projection = Literal["query", "key", "value", "output", "gate", "up", "down"]
Totals = tuple[Annotated[int, Field(ge=1)], ...]


def of_round(values: tuple[T, ...], number: int) -> T:
    """The value of round 1, 2, … of an option with one value per round; the last one repeats."""
    return values[min(number, len(values)) - 1]


class EnvConfig(StrictModel):
    """Options of `env`: the environment, and what is passed to it."""

    name: str = "intercode_sql"
    """Environment: a name of the registry (intercode_sql, webshop, ...), or your own as
    package.module:make_function."""
    options: dict[str, Any] = Field(default={})
    """Options of that environment; its own schema checks them."""
    workers: int = Field(default=2, ge=1)
    """Calls of environments under way at a time, while the device decodes; the others queue."""
    processes: bool = False
    """Each instance in a process of its own: for environments of pure Python that take long, or that may
    crash or eat memory. Those with a process of their own already (scienceworld, textworld) gain nothing."""
    process_memory_mib: int = Field(default=1024, ge=64)
    """Most memory of such a process for data; an environment that takes more is a fault and restarted."""
    step_timeout: float = Field(default=60.0, gt=0)
    """Seconds after which a reset or step counts as an environment fault."""
    max_fault_share: float = Field(default=0.5, gt=0, le=1)
    """The run stops where more than this share of a phase's episodes, and at least 8, end in faults; 1 never
    does."""


class TokenizerConfig(StrictModel):
    """Options of `tokenizer`."""

    path: str | None = None
    """Folder of a saved Hugging Face tokenizer; null takes that of model.path, else trains one on the
    warm-start experts' text."""
    vocab_size: int = Field(default=1024, ge=300)
    """Vocabulary size of a trained tokenizer (byte-level BPE)."""


class LoraConfig(StrictModel):
    """Low-rank adapters: both agents are small updates of one frozen base."""

    rank: int = Field(default=16, ge=1)
    """Inner width of every adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """An adapter's share is scaled by alpha / rank."""
    target_modules: tuple[Projection, ...] = ("query", "key", "value", "output", "gate", "up", "down")
    """Projections that have an adapter, in every layer."""
    warm_start: Literal["full", "adapter"] = "full"
    """full: the warm start trains all parameters and gives the base. adapter: it trains an adapter of the
    initial model, which both agents go on from."""

    base_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type the frozen base is kept in; bfloat16 loses nothing of a checkpoint that is stored in it."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class RopeScaling(StrictModel):
    """How a model stretches its rotary positions beyond the length it was first trained on."""

    kind: Literal["linear", "llama3"]
    """linear: every frequency divided by factor. llama3: only the slow ones (Llama 3.1, arXiv 2407.21783)."""
    factor: float = Field(ge=1)
    """By how much the context grew."""
    low_freq_factor: float = Field(default=1.0, gt=0)
    """llama3: frequencies with fewer turns than this in the original context are divided by factor."""
    high_freq_factor: float = Field(default=4.0, gt=0)
    """llama3: those with more turns than this stay as they are; between the two they are blended."""
    original_max_positions: int = Field(default=8192, ge=1)
    """llama3: the original context, in tokens."""


class ModelConfig(StrictModel):
    """Options of `model`: the transformer's architecture, types and adapters."""

    path: str | None = None
    """Folder of a Hugging Face checkpoint to start from; its config.json gives the shape options below. null
    starts from random weights."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Rows of a checkpoint's embedding, at least the tokenizer's tokens; null is the tokenizer's number."""
    max_positions: int | None = Field(default=None, ge=1)
    """Longest context the checkpoint was made for; null sets no limit."""
    hidden_size: int = Field(default=128, ge=8)
    """Width of the residual stream."""
    num_layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=4, ge=1)
    """Query heads."""
    num_kv_heads: int = Field(default=4, ge=1)
    """Key and value heads; divides num_heads (grouped-query attention)."""
    head_dim: int = Field(default=32, ge=2)
    """Width of a head; even, for rotary embeddings."""
    intermediate_size: int = Field(default=384, ge=8)
    """Width of the gated feed-forward."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary position embedding."""
    rope_scaling: RopeScaling | None = None
    """Stretched rotary positions (Llama 3.1); of full layers only, where sliding_rope_theta is set."""
    layer_types: tuple[Literal["full", "sliding"], ...] = ("full",)
    """Attention of the layers, repeated over their number: all of the past, or the sliding window."""
    sliding_window: int | None = Field(default=None, ge=1)
    """Tokens a sliding layer sees, its own among them (Mistral, Gemma 3)."""
    sliding_rope_theta: float | None = Field(default=None, gt=0)
    """Base of the rotary embedding in sliding layers, never scaled (Gemma 3); null is rope_theta."""
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    """Epsilon of RMSNorm."""
    norm_offset: float = 0.0
    """Added to the weight of every RMSNorm (Gemma: 1)."""
    post_norms: bool = False
    """RMSNorm on what attention and feed-forward add to the residual stream, too (Gemma 3)."""
    qk_norm: bool = True
    """RMSNorm on queries and keys (Qwen3, Gemma 3)."""
    qkv_bias: bool = False
    """Biases on queries, keys and values (Qwen2)."""
    query_scale: float | None = Field(default=None, gt=0)
    """Factor on the scores of attention; null is head_dim ** -0.5."""
    activation: Literal["silu", "gelu_tanh"] = "silu"
    """Gate of the feed-forward: SwiGLU, or GeGLU with the tanh form (Gemma)."""
    embedding_scale: bool = False
    """Multiply embedded tokens by the square root of hidden_size (Gemma)."""
    tie_embeddings: bool = True
    """Use the input embedding as output head."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type of matrix products; log-probabilities are float32 always."""
    attention: Literal["auto", "dense", "blocks", "flash"] = "auto"
    """Attention over packed rows: whole products with a mask; visible blocks only; or the latter as kernels
    for TPUs and NVIDIA GPUs. auto takes blocks on CPUs, else flash, or dense where that cannot run."""
    remat: Literal["none", "dots", "feed_forward", "full"] = "none"
    """What of a block the backward pass computes again: nothing; all but matrix products and attention; the
    feed-forward too; or everything."""
    lora: LoraConfig | None = None
    """Low-rank adapters on a frozen base that both agents share; null trains all parameters."""


class MeshConfig(StrictModel):
    """Options of `mesh`: how many devices each axis has."""

    data: int = Field(default=1, ge=1)
    """Devices along the batch."""
    fsdp: int = Field(default=1, ge=1)
    """Devices over which parameters and optimizer state are split (and the batch again)."""
    tensor: int = Field(default=1, ge=1)
    """Devices over which heads, feed-forward and vocabulary are split; where they are more than the key/value
    heads, each of these is on several."""


class BatchConfig(StrictModel):
    """Options of `batch`: the shape of a microbatch."""

    rows: int = Field(default=8, ge=1)
    """Rows of a microbatch (B)."""
    row_length: int = Field(default=512, ge=16)
    """Tokens of a row (T); also the longest trajectory that can be learned from."""
    views_per_row: int = Field(default=8, ge=1)
    """Most trajectories packed into a row (S)."""
    pairs: int = Field(default=64, ge=1)
    """Most preference pairs of a microbatch (P)."""
    step_pairs: int | None = Field(default=None, ge=1)
    """Pairs of an optimizer step, accumulated over microbatches; null makes every microbatch a step."""
    step_demonstrations: int | None = Field(default=None, ge=1)
    """The same for steps without pairs: trajectories of a step of supervised fine-tuning."""
    step_episodes: int | None = Field(default=None, ge=1)
    """The same for steps without pairs that reinforce: trajectories of a step."""
    share_prefixes: bool = True
    """Encode what trajectories of a task have in common once; changes the cost, not the numbers."""
    too_long: Literal["drop", "cut"] = "drop"
    """Trajectories longer than a row: leave them out with their pairs, or cut them after a whole turn."""


class OptimizerConfig(StrictModel):
    """AdamW with a clipped gradient norm."""

    adam_b1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""
    adam_b2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest global gradient norm."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What a step does whose gradient is not finite: stop the run, or be skipped and counted. Either way it
    changes no agent, and its batch is kept in the run's folder (docs/runs.md)."""


class WarmStartConfig(StrictModel):
    """Options of `warm_start`: the imitation of the experts."""

    tasks: str = Field(default="0:300", pattern=r"^\d*:\d*$")
    """Slice of the train split whose experts are imitated, or of the rows of data."""
    data: str | None = None
    """Experts to imitate instead of the environment's: a file or folder of any format that launch.data reads,
    or hub:owner/name."""
    best_of_task: bool = False
    """Of data imitate the best row of each task alone, if it earned a reward; it is the task's expert, too,
    where the environment has none. So data may be an agent's own roll-outs (recipe self-imitation)."""
    learn: Literal["agent", "text"] = "agent"
    """Which tokens are learned: the agent's own, or the whole text, prompt and answers too, as a language
    model is pretrained (docs/bases.md)."""
    data_errors: Literal["refuse", "skip"] = "refuse"
    """What a broken row of data does: refuse the set, or be left out and counted."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the experts."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate, cosine to zero."""
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps with linear warm-up."""


class ExploreConfig(StrictModel):
    """Options of `explore`: the tasks and samples that agents play in a round."""

    tasks: tuple[TaskSlice, ...] = ("300:900",)
    """Slices of the train split, one per round, the last repeats. From scratch: none of warm_start's."""
    samples: int = Field(default=1, ge=1)
    """Roll-outs per task and agent."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampling distribution."""
    top_k: int = Field(default=0, ge=0)
    """Draw from this many of the likeliest tokens; 0 from all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Least share of the likeliest token's probability that a token needs to be drawn; 0 asks for none."""
    block_tasks: int = Field(default=200, ge=1)
    """Tasks explored between two commits."""
    together: bool = True
    """Let both agents explore side by side at a round's start, with rollout.slots each: one decodes while the
    other's environments step. false plays one after the other, with half the environments and caches."""


class ServerConfig(StrictModel):
    """A vLLM or SGLang server that writes the turns of exploration instead of this process's devices."""

    url: str = Field(pattern=r"^https?://[^/\s]+(/\S+)?/v1$")
    """Root of its OpenAI-compatible API, such as http://host:8000/v1."""
    urls: dict[str, Annotated[str, Field(pattern=r"^https?://[^/\s]+(/\S+)?/v1$")]] = Field(default={})
    """Other servers of the same kind, by the name of the agent that has one; the others share the first."""
    load: Literal["vllm_lora", "vllm", "sglang"]
    """How the server gets an agent's weights, from a folder that it can read under the same path: vllm_lora
    loads adapters beside each other; vllm and sglang replace all weights, so that a server has one agent."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that a request may take, with all its tries; then the run stops, to be resumed."""


class RolloutConfig(StrictModel):
    """Options of `rollout`: slots, limits and sampling of the episodes."""

    slots: int = Field(default=16, ge=1)
    """Episodes played side by side; each holds one environment instance."""
    max_tokens: int = Field(default=512, ge=16)
    """Length of the KV cache of a slot: prompt, turns and observations of one episode."""
    max_turn_tokens: int = Field(default=64, ge=1)
    """Most tokens of one agent turn; beyond, the episode ends with token_limit."""
    decode_block: int = Field(default=32, ge=1)
    """Most tokens decoded on the device before the host looks."""
    joining: Literal["auto", "at_once", "next_block", "as_ready"] = "auto"
    """When a turn goes on: with the next block, which waits for the environments (fast ones); one block
    later, during which they step (slow ones); or as each answers, in an order that the clock decides. auto is
    at_once on CPUs, where a run can then be repeated bit by bit, and as_ready on accelerators."""
    stop_at_action_line: bool = False
    """End a turn at the end of its action's line, for environments whose actions are single lines."""
    tensor: int = Field(default=1, ge=1)
    """Devices of a host that share the roll-out copy: its heads, feed-forward and vocabulary."""
    server: ServerConfig | None = None
    """Explore through a server (docs/rollouts.md); null explores, as evaluation always does, on the devices
    of this process."""


class BudgetConfig(StrictModel):
    """Totals, one per round, for controls at the cost of another run."""

    run: str | None = None
    """Folder of a finished run whose totals are taken; a run that is created stores them as numbers."""
    match: tuple[Literal["pairs", "explored_tokens", "learned_tokens"], ...] = ()
    """Which totals are taken from that run."""
    pairs: Totals | None = None
    """Pairs that the target agent learns from, whatever more there are."""
    explored_tokens: Totals | None = None
    """Tokens written in a round's explorations: played sample by sample, until a block of tasks reaches them
    or explore.samples is played."""
    learned_tokens: Totals | None = None
    """Tokens that a round's steps put through the model: taken until one reaches them, not target.epochs."""


class EvaluateConfig(StrictModel):
    """Options of `evaluate`: the held-out tasks that agents play greedily."""

    split: Literal["dev", "test"] = "test"
    """Split of the evaluation during the run."""
    tasks: str = Field(default=":", pattern=r"^\d*:\d*$")
    """Slice of that split."""
    hard_negative_threshold: float = Field(default=0.6, ge=0, le=1)
    """A failure with at least this reward counts as a hard negative (a measure, not a filter)."""


class CheckpointConfig(StrictModel):
    """Options of `checkpoint`: when agents are stored, and what is kept."""

    every_steps: int = Field(default=50, ge=1)
    """Optimizer steps between two commits inside a learning phase."""
    keep: Annotated[int, Field(ge=1)] | Literal["all"] = 2
    """Checkpoints kept, beside the warm start's; while one is written, it is one more. all deletes
    none, so that `launch.audit` can let every agent that played score what it wrote."""
    folder: str | None = None
    """Where checkpoints lie, in a folder of the run's name: a path, or gs://BUCKET/PATH, which needs gcsfs
    (requirements-bucket.txt). null is the run's own folder."""


class WandbConfig(StrictModel):
    """Weights & Biases, which shows the metrics of runs side by side (requirements-wandb.txt)."""

    project: str = Field(min_length=1)
    """Project that the run belongs to."""
    mode: Literal["offline", "online"] = "offline"
    """offline writes into the run's folder, for `wandb sync`; online sends to the server that the machine is
    logged in to."""


class LogConfig(StrictModel):
    """Second places for what the metrics log has."""

    wandb: WandbConfig | None = None
    """Log the metrics there, too; null does not."""


class Config(StrictModel):
    """All options of a run."""

    format: Literal[2] = FORMAT
    """Form of this file; 1, which had no such key, is translated."""
    name: str = "quickstart"
    """Name of the run, and of its folder."""
    method: str = "coevo"
    """Label of the method in tables; the options below define it."""
    seed: int = Field(default=0, ge=0)
    """Root of all randomness."""
    runs_dir: str = "runs"
    """Folder that holds the run folders."""
    rounds: int = Field(default=3, ge=0)
    """Rounds of the recipe after the warm start."""
    recipe: Recipe = ()
    """The phases of a round, in order: the name of a shipped recipe (configs/recipes), or the list itself
    (docs/method.md)."""
    env: EnvConfig = EnvConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    mesh: MeshConfig = MeshConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    explore: ExploreConfig = ExploreConfig()
    rollout: RolloutConfig = RolloutConfig()
    agents: dict[str, AgentConfig] = Field(default={})
    """How the recipe's agents learn, by their names; those it does not name have the defaults."""
    judge: JudgeConfig = JudgeConfig()
    budget: BudgetConfig = BudgetConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
