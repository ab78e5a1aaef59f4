"""Mistral's own tokenizer files as tokenizer.json, and what its own library encodes: needs mistral-common.

python mistral_files.py FOLDER: the files of mistral_common's data lie there. It needs transformers 4 with
sentencepiece, and nothing of the project.
"""

import json
import sys
from pathlib import Path

from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken
from transformers import LlamaTokenizerFast

FILES = {
    "v1": "tokenizer.model.v1",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "tekken": "tekken_240718.json",
}
SYSTEM, TASK, ANSWER = "Be brief.", "Count the singers.", "Thought: I count.\nAction: submit"


def convert(file: Path, out: Path) -> None:
    """A SentencePiece model's pieces and merges, its control pieces as special tokens."""
    pieces = SentencePieceProcessor(model_file=str(file))
    tokenizer = LlamaTokenizerFast(vocab_file=str(file), legacy=True, add_bos_token=True)
    control = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size()) if pieces.is_control(i)]
    special = [AddedToken(text, special=True, normalized=False) for text in control]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.save_pretrained(out)


def encoded(name: str, file: Path) -> dict[str, list[int]]:
    """Prompt and a conversation of two turns, without and with a system prompt."""
    copy = file
    if name == "v1":  # the library tells a version by the name
        copy = file.with_name("tokenizer.model.v1")
    tokenizer = MistralTokenizer.from_file(str(copy))
    found = {}
    for system in ("", SYSTEM):
        first = [SystemMessage(content=system)] * bool(system) + [UserMessage(content=TASK)]
        rest = [AssistantMessage(content=ANSWER), UserMessage(content="None")]
        for turns, messages in ((0, first), (1, [*first, *rest])):
            request = ChatCompletionRequest(messages=messages)
            found[f"{system}|{turns}"] = tokenizer.encode_chat_completion(request).tokens
    return found


def main(folder: Path) -> None:
    for name, file in FILES.items():
        out = folder / name
        if name != "tekken":
            convert(folder / file, out)
        out.mkdir(exist_ok=True)
        (out / "mistral_common.json").write_text(json.dumps(encoded(name, folder / file)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
