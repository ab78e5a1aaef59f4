"""What an agent of a run says of given tokens: a plain forward pass, one row for each trajectory, in float32.

Nothing of how the run scored is taken over: no packing, no sharing, no cache, no compute type of the run.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from coevo_jax.audit.check import NotCheckable
from coevo_jax.audit.order import lead_in
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.whose import checkpoint_folder
from coevo_jax.config.options import ModelConfig
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.lora import model_variables, plain
from coevo_jax.models.transformer import Transformer, init_params, output_head

SHORTEST = 64  # lengths are padded to this or a power of two above: few programs serve all rows
CHUNK = 64  # places whose logits are in memory at a time
LOGITS = 1 << 24  # numbers among those
ROWS = 16
BASE = "base"  # what a checkpoint holds beside agents, under adapters
JUDGE = "step-judge"  # the discriminator, where the recipe has one
COUNTS = ("step", "count")  # of an agent's state: its optimizer steps, and those of Adam

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Of each token of a row: its log-probability, and log sum p^2 of all in its place; 0 for the first."""

    logps: np.ndarray  # float64 [L]
    collisions: np.ndarray  # float64 [L]


@dataclass(frozen=True, kw_only=True)
class Agents:
    """The agents as a run's checkpoints hold them. Two of them at most are in memory."""

    files: RunFiles

    def score(self, number: int, agent: str, rows: Sequence[np.ndarray]) -> list[Scored]:
        """What the agent of a checkpoint says of rows of tokens.

        Raises:
          NotCheckable: the checkpoint is gone.
        """
        return _score(*self.loaded(number, agent), rows)

    def score_initial(self, rows: Sequence[np.ndarray]) -> list[Scored]:
        """What the model that the warm start began with says: fresh adapters change nothing of it."""
        return _score(*self.loaded(None, ""), rows)

    def loaded(self, number: int | None, agent: str) -> tuple[Transformer, Any]:
        """The model and the variables of a checkpoint's agent; without a number, of the initial model.

        Raises:
          NotCheckable: the checkpoint is gone.
        """
        if number is None:
            return plain(self._model), {"params": self._initial}
        params = self._load(number, self._stored(number, agent))
        frozen = self._base if self._adapted(number) else {}
        return self._model if frozen else plain(self._model), model_variables(params, frozen)

    def judge(self, number: int) -> tuple[Transformer, Any, Mapping[str, np.ndarray] | None]:
        """The discriminator of a checkpoint: its model, its backbone's variables, and its head.

        The head is None where a run began with the warm start of another recipe: the discriminator is then
        what that trained, undecided everywhere.

        Raises:
          NotCheckable: the checkpoint is gone.
        """
        if not self.has(number) or (checkpoint_folder(self.files, number) / JUDGE).is_dir():
            params = self._load(number, JUDGE)
            frozen = self._base if self._adapted(number) else {}
            model = self._model if frozen else plain(self._model)
            return model, model_variables(params["backbone"], frozen), params["head"]
        return *self.loaded(number, lead_in(self.files.config)), None

    def steps_taken(self, number: int, agent: str) -> tuple[int, int]:
        """Optimizer steps of a checkpoint's agent since the run began, and those that Adam has counted."""
        agent = self._stored(number, agent)
        tree = self._metadata(number, agent)
        wanted = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree) if _last(path) in COUNTS]
        if sorted(map(_last, wanted)) != sorted(COUNTS):
            raise NotCheckable(
                f"checkpoint {number} holds the counts {wanted}, expected the agent's and Adam's"
            )
        found = self._restore(number, agent, tree, lambda path: path in wanted)
        values = {_last(path): int(leaf) for path, leaf in found.items()}
        return values["step"], values["count"]

    def _stored(self, number: int, agent: str) -> str:
        """The name under which a checkpoint holds an agent.

        The warm start's may be that of another recipe, which the run was forked from: all agents agree there,
        whatever they are called.
        """
        folder = checkpoint_folder(self.files, number)
        shared = self.files.records.get("warm_start", {}).get("records", {}).get("checkpoint")
        if number != shared or not folder.is_dir() or (folder / agent).is_dir():
            return agent
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        return next((name for name in names if name not in (BASE, JUDGE) and name[0] not in "._"), agent)

    def has(self, number: int) -> bool:
        return (checkpoint_folder(self.files, number)).is_dir()

    @cached_property
    def _model(self) -> Transformer:
        model = self.files.config.model.model_copy(update={"dtype": "float32"})
        rows = model.vocab_size or self.files.recorded("prepare", "vocab_size")
        return Transformer(model, rows)

    @cached_property
    def _load(self) -> Callable[[int, str], Any]:
        @lru_cache(maxsize=2)
        def load(number: int, agent: str) -> Any:
            tree = {"params": self._metadata(number, agent)["params"]}
            return self._whole(number, agent, tree)["params"]

        return load

    def _adapted(self, number: int) -> bool:
        """Whether a checkpoint's agent is adapters, as it is once the base is stored."""
        base = self.files.manifest["base"]
        return base is not None and number >= base

    @cached_property
    def _base(self) -> Any:
        number = self.files.manifest["base"]
        return self._whole(number, BASE, self._metadata(number, BASE))

    @cached_property
    def _initial(self) -> Any:
        config, model = self.files.config, plain(self._model)
        if config.model.path is None:
            params = nn.unbox(_initializer(model)(jax.random.key(config.seed)))
        else:
            if not Path(config.model.path).is_dir():
                raise NotCheckable(f"gone: the checkpoint {config.model.path} that the run began with")
            shapes = nn.unbox(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
            one = Mesh(np.array(jax.devices()[:1]), ("one",))
            place = NamedSharding(one, PartitionSpec())
            abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
            params = load_params(Path(config.model.path), config.model, abstract)
        lora = config.model.lora
        if lora is not None and lora.warm_start == "adapter":
            params = jax.tree.map(lambda leaf: leaf.astype(lora.base_dtype), params)
        return params

    def _metadata(self, number: int, item: str) -> Any:
        folder = checkpoint_folder(self.files, number)
        if not folder.is_dir():
            raise NotCheckable(f"pruned: checkpoint {number} is gone (checkpoint.keep: all keeps every one)")
        if not (folder / item).is_dir():
            raise NotCheckable(f"checkpoint {number} holds no {item}")
        tree: Any = ocp.PyTreeCheckpointHandler().metadata(folder / item).tree
        return tree

    def _whole(self, number: int, item: str, tree: Any) -> Any:
        """A part of a checkpoint that is a tree of mappings, as arrays of the host."""
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arguments = ocp.args.PyTreeRestore(item=tree, restore_args=how, partial_restore=True)
            return reader.restore(checkpoint_folder(self.files, number) / item, args=arguments)

    def _restore(self, number: int, item: str, tree: Any, wanted: Callable[[Any], bool]) -> dict[Any, Any]:
        """Single leaves of a checkpoint by their paths; the others are not read."""
        place = jax.tree_util.tree_map_with_path
        item_tree = place(lambda path, leaf: leaf if wanted(path) else ocp.PLACEHOLDER, tree)
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arguments = ocp.args.PyTreeRestore(item=item_tree, restore_args=how)
            found = reader.restore(checkpoint_folder(self.files, number) / item, args=arguments)
        leaves = jax.tree_util.tree_leaves_with_path(found)
        return {path: leaf for path, leaf in leaves if leaf is not ocp.PLACEHOLDER}


_initializer: Any = lru_cache(maxsize=4)(lambda model: jax.jit(partial(init_params, model)))
"""Makes a model's random parameters from a key; compiled once."""


def _last(path: Any) -> str:
    """The last key of a leaf's path, by whatever kind of tree it is in."""
    return str(jax.tree_util.keystr(path[-1:], simple=True))


def _score(model: Transformer, variables: Any, rows: Sequence[np.ndarray]) -> list[Scored]:
    found = in_rows(lambda tokens: _forward(model, variables, tokens), rows)
    return [Scored(logps=logps, collisions=collisions) for logps, collisions in found]


def in_rows(forward: Callable[[np.ndarray], Any], rows: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """What a forward pass over tokens [ROWS, L] gives for each row of tokens, float64 [its length] each.

    Args:
      forward: gives arrays of the tokens' shape.
    """
    found: list[list[np.ndarray]] = [[] for _ in rows]
    by_length: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_length.setdefault(_padded(len(row)), []).append(place)
    with jax.default_matmul_precision("highest"):
        for length, places in by_length.items():
            for start in range(0, len(places), ROWS):
                own = places[start : start + ROWS]
                tokens = np.zeros((ROWS, length), np.int32)
                for b, place in enumerate(own):
                    tokens[b, : len(rows[place])] = rows[place]
                arrays = [np.asarray(x, np.float64) for x in forward(tokens)]
                for b, place in enumerate(own):
                    found[place] = [array[b, : len(rows[place])] for array in arrays]
    return found


def _padded(length: int) -> int:
    size = SHORTEST
    while size < length:
        size *= 2
    return size


@lru_cache(maxsize=4)
def _program(model: Any) -> Any:
    @jax.jit
    def forward(variables: Any, tokens_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, length = tokens_BT.shape
        places = jnp.broadcast_to(jnp.arange(length), tokens_BT.shape)
        hidden: Any = model.apply(variables, tokens_BT, places, jnp.full_like(tokens_BT, length))
        head_VD = output_head(variables["params"]).astype(jnp.float32)
        following = jnp.concatenate([tokens_BT[:, 1:], jnp.zeros((rows, 1), jnp.int32)], axis=1)
        size = chunk_size(rows * length, head_VD.shape[0])

        def chunk(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            logps = jax.nn.log_softmax(part[0].astype(jnp.float32) @ head_VD.T)
            own = jnp.take_along_axis(logps, part[1][:, None], axis=1)[:, 0]
            return own, jax.nn.logsumexp(2 * logps, axis=1)

        parts = hidden.reshape(-1, size, hidden.shape[-1]), following.reshape(-1, size)
        scored = jax.lax.map(chunk, parts)
        shifted = [jnp.roll(one.reshape(rows, length), 1, axis=1).at[:, 0].set(0.0) for one in scored]
        return shifted[0], shifted[1]

    return forward


def chunk_size(places: int, vocab_size: int) -> int:
    """Places whose logits are in memory at a time: a divisor of all."""
    most = max(1, min(CHUNK * ROWS, LOGITS // vocab_size))
    return next(n for n in range(most, 0, -1) if places % n == 0)


def _forward(model: Transformer, variables: Any, tokens: np.ndarray) -> Any:
    program: Any = _program  # a module of flax is hashable, whatever its type says
    return program(model)(variables, tokens)


def sample(items: Iterable[T], name: Callable[[T], str], most: int | None) -> list[T]:
    """At most so many of the items, drawn by a hash of their names: the same ones at every audit."""
    found = list(items)
    if most is None or len(found) <= most:
        return found
    return sorted(found, key=lambda item: hashlib.sha256(name(item).encode()).digest())[:most]


def per_token(model: ModelConfig, devices: Sequence[str]) -> float:
    """How far the run's log-probability of a token may be from ours, in nats, by what it computed in.

    Accelerators multiply float32 matrices in fewer bits unless told otherwise; the run leaves that to them.
    """
    if model.dtype == "bfloat16":
        return 0.05
    return 1e-4 if all("cpu" in device.lower() for device in devices) else 5e-3
