"""TFDS builders of expert and trajectory sets: ArrayRecord shards, written and read without TensorFlow.

`write_*` makes a folder that any program opens by
`tfds.builder_from_directory(folder).as_data_source(split="train")`. Texts come back as UTF-8 bytes, and TFDS
keeps floats with 32 bits, so that exact values stand beside them as text.
"""

import contextlib
import io
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange.records import Conversation, Message, Speaker
from coevo_jax.data.interchange.splits import choose_split
from coevo_jax.trajectory import Ending, Trajectory, Turn

DESCRIPTION_FILE = "dataset_info.json"
EXPERTS, TRAJECTORIES = "coevo_experts", "coevo_trajectories"
Text, Sequence, Tensor = tfds.features.Text, tfds.features.Sequence, tfds.features.Tensor


class _RowsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the rows it is given, in their order, as one split."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # no file of checksums beside this one: nothing is downloaded

    def __init__(self, *, folder: Path, split: str, rows: Iterable[dict[str, Any]]) -> None:
        self._split, self._rows = split, rows
        super().__init__(data_dir=str(folder), file_format="array_record")

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {self._split: self._generate_examples()}

    def _generate_examples(self) -> Iterator[Any]:
        return enumerate(self._rows)

    def _describe(self, description: str, features: dict[str, Any]) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )


class CoevoExperts(_RowsBuilder, skip_registration=True):
    """Conversations of experts: system prompt, messages with speaker and loss flag, reward."""

    def _info(self) -> Any:
        return self._describe(
            "Conversations of an expert with an environment. learned: whether to train on the message.",
            {
                "id": Text(),
                "system_prompt": Text(),
                "acknowledgement": Text(),
                "messages": Sequence(
                    {"speaker": Text(), "text": Text(), "learned": np.bool_, "extra": Text()}
                ),
                "reward": np.float32,  # NaN where the row has none
                "reward_text": Text(),  # the same with every digit, empty where the row has none
                "extra": Text(),  # other keys, as a JSON object
            },
        )


class CoevoTrajectories(_RowsBuilder, skip_registration=True):
    """Trajectories with the very tokens of the episode; tokens, agent_mask and logps have one length."""

    def _info(self) -> Any:
        return self._describe(
            "Episodes of an agent in an environment, as text and as the tokens that were sampled.",
            {
                "task_id": Text(),
                "agent": Text(),
                "sample": np.int32,
                "prompt": Text(),
                "turns": Sequence({"response": Text(), "action": Text(), "observation": Text()}),
                "reward": np.float32,
                "reward_text": Text(),  # the same with every digit
                "ending": Text(),
                "tokens": Tensor(shape=(None,), dtype=np.int32),
                "agent_mask": Tensor(shape=(None,), dtype=np.bool_),
                "logps": Tensor(shape=(None,), dtype=np.float32),
            },
        )


def write_experts(folder: Path, conversations: Iterable[Conversation], split: str = "train") -> Path:
    """Write a set of conversations below `folder`; returns the folder that TFDS opens.

    Raises:
      ConfigError: the set stands there already.
    """
    return _write(CoevoExperts, EXPERTS, folder, split, map(_from_conversation, conversations))


def write_trajectory_set(folder: Path, trajectories: Iterable[Trajectory], split: str = "train") -> Path:
    """Write a set of trajectories below `folder`; returns the folder that TFDS opens.

    Raises:
      ConfigError: the set stands there already.
    """
    return _write(CoevoTrajectories, TRAJECTORIES, folder, split, map(_from_trajectory, trajectories))


def find_set(folder: Path) -> Path | None:
    """The folder that TFDS opens: this one, or the only one up to two levels below; None if there is none."""
    for pattern in (DESCRIPTION_FILE, f"*/{DESCRIPTION_FILE}", f"*/*/{DESCRIPTION_FILE}"):
        found = [path.parent for path in folder.glob(pattern) if (path.parent / "features.json").is_file()]
        if len(found) > 1:
            names = ", ".join(str(path) for path in sorted(found))
            raise ConfigError(f"{folder}: found several TFDS sets ({names}), expected one; name one of them")
        if found:
            return found[0]
    return None


def open_set(folder: Path, split: str | None) -> tuple[str, Any]:
    """Name of the set's builder, and its rows as a data source (a sequence that reads a row when asked).

    Raises:
      ConfigError: files are broken or missing, or there is no such split.
    """
    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        split = choose_split(str(folder), split, list(builder.info.splits))
        rows = builder.as_data_source(split=split)
        if len(rows):
            rows[0]  # opens the shards, which are missing or broken now rather than in the middle
        return builder.name, rows
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        first = str(error).strip().split("\n")[0]
        raise ConfigError(f"{folder}: cannot be opened as a TFDS set: {first}") from None


def to_conversation(row: dict[str, Any]) -> Conversation:
    """A conversation as it was written.

    Raises:
      ValueError, KeyError: the row is one of another set.
    """
    messages = row["messages"]
    return Conversation(
        id=_decode(row["id"]),
        messages=tuple(
            Message(
                speaker=Speaker(_decode(speaker)),
                text=_decode(text),
                skipped=not learned,
                extra=json.loads(extra) if extra else None,
            )
            for speaker, text, learned, extra in zip(
                messages["speaker"], messages["text"], messages["learned"], messages["extra"], strict=True
            )
        ),
        system_prompt=_decode(row["system_prompt"]),
        acknowledgement=_decode(row["acknowledgement"]),
        reward=float(_decode(row["reward_text"])) if row["reward_text"] else None,
        extra=json.loads(row["extra"]),
    )


def to_trajectory(row: dict[str, Any]) -> Trajectory:
    """A trajectory as it was written.

    Raises:
      ValueError, KeyError: the row is one of another set.
    """
    turns = row["turns"]
    texts = zip(turns["response"], turns["action"], turns["observation"], strict=True)
    return Trajectory(
        task_id=_decode(row["task_id"]),
        agent=_decode(row["agent"]),
        sample=int(row["sample"]),
        prompt=_decode(row["prompt"]),
        turns=tuple(
            Turn(response=_decode(r), action=_decode(a), observation=_decode(o)) for r, a, o in texts
        ),
        reward=float(_decode(row["reward_text"])),
        ending=Ending(_decode(row["ending"])),
        tokens=np.asarray(row["tokens"], np.int32),
        agent_mask=np.asarray(row["agent_mask"], bool),
        logps=np.asarray(row["logps"], np.float32),
    )


READERS: dict[str, Callable[[dict[str, Any]], Conversation | Trajectory]] = {
    EXPERTS: to_conversation,
    TRAJECTORIES: to_trajectory,
}


def _write(
    builder_class: Callable[..., Any], name: str, folder: Path, split: str, rows: Iterable[dict[str, Any]]
) -> Path:
    if list((folder / name).glob(f"*/{DESCRIPTION_FILE}")):
        raise ConfigError(f"{folder / name}: there is a TFDS set already; expected a folder without one")
    if not split.isidentifier():
        raise ConfigError(f"split: found {split!r}, expected a word such as train")
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise ConfigError(f"{folder}: no rows to write")
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as nothing:
        builder = builder_class(folder=folder, split=split, rows=itertools.chain([first], rows))
        builder.download_and_prepare(download_dir=nothing)
    return Path(builder.data_dir)


def _from_conversation(conversation: Conversation) -> dict[str, Any]:
    reward = conversation.reward
    return {
        "id": conversation.id,
        "system_prompt": conversation.system_prompt,
        "acknowledgement": conversation.acknowledgement,
        "messages": [
            {
                "speaker": message.speaker.value,
                "text": message.text,
                "learned": not message.skipped,
                "extra": json.dumps(message.extra, ensure_ascii=False) if message.extra else "",
            }
            for message in conversation.messages
        ],
        "reward": np.float32(np.nan if reward is None else reward),
        "reward_text": "" if reward is None else repr(reward),
        "extra": json.dumps(conversation.extra, ensure_ascii=False),
    }


def _from_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "task_id": trajectory.task_id,
        "agent": trajectory.agent,
        "sample": np.int32(trajectory.sample),
        "prompt": trajectory.prompt,
        "turns": [
            {"response": turn.response, "action": turn.action, "observation": turn.observation}
            for turn in trajectory.turns
        ],
        "reward": np.float32(trajectory.reward),
        "reward_text": repr(float(trajectory.reward)),
        "ending": trajectory.ending.value,
        "tokens": np.asarray(trajectory.tokens, np.int32),
        "agent_mask": np.asarray(trajectory.agent_mask, bool),
        "logps": np.asarray(trajectory.logps, np.float32),
    }


def _decode(text: bytes | str) -> str:
    return text.decode() if isinstance(text, bytes) else text
