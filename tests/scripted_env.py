"""A tiny random model, a chat of bare token ids and scripted environments for roll-out tests."""

import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coevo_jax.config.options import ModelConfig, RolloutConfig
from coevo_jax.envs.env import EnvFault, StepResult, Task
from coevo_jax.models.transformer import Transformer
from coevo_jax.sampling.engine import Engine
from coevo_jax.trajectory import Demonstration
from tests.fresh import fresh_params

ALPHABET = 'Action: <>"bcdefghijklmpqrsuvwxyzTNO|0123456789'  # one token per character, from id 2 on
VOCAB = len(ALPHABET) + 2
CONFIG = ModelConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    tie_embeddings=False,
)
END_LEAN = 0.5  # raises the score of the end token
MODEL = Transformer(CONFIG, VOCAB)


def random_params(seed: int = 0):
    """Random parameters whose turns end after about six tokens when drawn at temperature 1.

    Embeddings share a constant part, to which the output row of the end token is aligned.
    """
    params = fresh_params(MODEL, seed)
    head = (params["head"] * 2.0).at[CharChat.end_id].set(END_LEAN)
    return {**params, "embedding": params["embedding"] + 0.2, "head": head}


def make_engine(
    slots: int = 3,
    max_tokens: int = 160,
    max_turn_tokens: int = 12,
    joining: str = "at_once",
    model: Transformer = MODEL,
    **options,
) -> Engine:
    config = RolloutConfig(
        slots=slots,
        max_tokens=max_tokens,
        max_turn_tokens=max_turn_tokens,
        decode_block=8,
        joining=joining,  # pyright: ignore[reportArgumentType]
    )
    return Engine(model, config, CharChat.end_id, **options)


@dataclass(frozen=True)
class CharChat:
    """One token per character; `<` opens, `>` hands over to the agent. Same methods as ChatFormat."""

    end_id: int = 1
    pad_id: int = 0
    vocab_size: int = VOCAB
    always_acts: bool = True  # read every response as an action, so that a random model plays on

    def prompt_ids(self, system: str, prompt: str) -> list[int]:
        return self.encode(f"<{system}|{prompt}>")

    def response_ids(self, text: str) -> list[int]:
        return [*self.encode(text), self.end_id]

    def observation_ids(self, observation: str) -> list[int]:
        return self.encode(f"<{observation}>")

    def decode_response(self, ids: Sequence[int]) -> str:
        text = "".join(ALPHABET[id - 2] for id in ids if 2 <= id < len(ALPHABET) + 2)
        return f"Action: {text}." if self.always_acts else text

    def encode(self, text: str) -> list[int]:
        return [ALPHABET.index(character) + 2 for character in text]


@dataclass(eq=False)
class ScriptedEnv:
    """Answers with random text of its own; task and turn decide what happens. Reward 0.25 at a limit.

    `ends_at` is the turn that ends the episode, `hang` and `fail` name the turns (0 is the reset) that hang
    or raise, and `observation` is the length of an answer in characters.
    """

    ends_at: int = 4
    turns: int = 6
    observation: int = 20
    final_reward: float = 1.0
    hang: frozenset[int] = frozenset()
    fail: frozenset[int] = frozenset()
    release: threading.Event = field(default_factory=threading.Event)
    name: str = "scripted"
    system_prompt: str = "xyz"
    deterministic: bool = True
    closed: int = 0

    def tasks(self, split: str) -> Sequence[Task]:
        return make_tasks(3)

    def max_turns(self, task: Task) -> int:
        return self.turns

    def reset(self, task: Task) -> str:
        self.turn = 0
        self.random = np.random.default_rng(zlib.crc32(task.id.encode()))
        return self._answer()

    def step(self, action: str) -> StepResult:
        self.turn += 1
        self.actions = [action]
        observation = self._answer()
        return StepResult(observation=observation, done=self.turn == self.ends_at, reward=self.final_reward)

    def reward_at_limit(self) -> float:
        return 0.25

    def expert(self, task: Task) -> Demonstration | None:
        return None

    def close(self) -> None:
        self.closed += 1
        self.release.set()

    def _answer(self) -> str:
        if self.turn in self.hang:
            self.release.wait(20)
        if self.turn in self.fail:
            raise EnvFault("broken") if self.turn % 2 else RuntimeError("broken")
        length = self.random.integers(self.observation // 2, self.observation + 1)
        return "".join(self.random.choice(list(ALPHABET), length))


class SlowEnv(ScriptedEnv):
    """Takes a random, short time to answer, so that answers come in another order every time."""

    def _answer(self) -> str:
        time.sleep(np.random.default_rng().uniform(0, 0.004))
        return super()._answer()


def make_tasks(count: int) -> list[Task]:
    return [Task(id=f"task/{index}", split="train", family="scripted") for index in range(count)]
