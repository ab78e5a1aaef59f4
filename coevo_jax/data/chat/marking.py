"""Trajectories under another mark, and the marks that a chat format cannot hold."""

from dataclasses import replace

import numpy as np

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.methods.marks import TASK, marked, unmarked
from coevo_jax.trajectory import Trajectory

_ENDS = ".,;!?"  # a template's words in a sentence are no control strings


def remark(chat: ChatFormat, system: str, trajectory: Trajectory, mark: str) -> Trajectory:
    """Put a trajectory's prompt under a mark, in place of the one that it was played under.

    Only the tokens before the agent's first are others; the agent's are the very tokens, and mask and
    log-probabilities move with them. A log-probability stays that of the prompt as it was played.
    """
    if mark == trajectory.mark or not trajectory.agent_mask.any():
        return trajectory
    prompt = marked(unmarked(trajectory.prompt, trajectory.mark), mark)
    ids = np.array(chat.prompt_ids(system, prompt), np.int32)
    start, branch = int(np.flatnonzero(trajectory.agent_mask)[0]), trajectory.branch
    return replace(
        trajectory,
        prompt=prompt,
        mark=mark,
        tokens=np.concatenate([ids, trajectory.tokens[start:]]),
        agent_mask=np.concatenate([np.zeros(len(ids), bool), trajectory.agent_mask[start:]]),
        logps=np.concatenate([np.zeros(len(ids), np.float32), trajectory.logps[start:]]),
        branch=branch and replace(branch, tokens=branch.tokens + len(ids) - start),
    )


def cannot_hold(chat: ChatFormat, mark: str) -> str:
    """Why a chat format cannot hold a mark in a message; "" where it can.

    A mark is text: it may look neither like a control token nor like a word that the template writes around
    messages, and it has to come back when its tokens are decoded.
    """
    words = mark.replace(TASK, "\n")
    if found := chat.sections.control.search(words):
        return f"it holds {found[0].strip()!r}, a control token of the chat template"
    for word in _control_words(chat):
        if word in words:
            return f"it holds {word!r}, which the chat template writes around messages"
    task = "A task"
    ids = chat.prompt_ids("", marked(task, mark))
    back = chat.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
    unknown = chat.tokenizer.unk_token_id
    if marked(task, mark) not in back or (unknown is not None and unknown in ids):
        return f"it does not come back: its tokens decode to {back!r}"
    return ""


def _control_words(chat: ChatFormat) -> list[str]:
    """Words of the template's own text that are more than letters, such as [INST] or USER:.

    Roles between control tokens ("user") are plain words, which anybody may write.
    """
    parts = (*chat.before_system, *chat.after_system, *chat.before_prompt)
    parts += (*chat.before_response, *chat.before_observation)
    words = {word for part in parts if isinstance(part, str) for word in part.split()}
    own = (word for word in words if len(word) > 1 and not word.rstrip(_ENDS).isalnum())
    return sorted(own, key=lambda word: (-len(word), word))
