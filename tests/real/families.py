"""Every family's real tokenizer and template: tokens, masks, played turns, and runs that begin with them.

python -m tests.real.families FOLDER [FAMILY ...]     what is downloaded and made lies in FOLDER

All families are compared. A round is trained, exported and gone on from once for each tokenizer, and once
more where the template's prompt opens a thought: what families share there is the same to a run.
"""

import shutil
import sys
import time
from pathlib import Path

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from tests.real.chat_checks import check_chat, opens_thoughts
from tests.real.model_files import FAMILIES, Family, fetch, sources_in, tokenizer_folder
from tests.real.model_runs import model_folder, trained_and_exported

Kinds = dict[tuple[str, bool], str]  # what was trained: tokenizer, and whether prompts open a thought


def check_family(name: str, family: Family, sources: Path, folder: Path, trained: Kinds) -> str:
    """What was seen of a family, in words.

    Raises:
      AssertionError: a claim does not hold.
    """
    files = tokenizer_folder(sources, folder / "tokenizer", family)
    if family.refused:
        try:
            chat_format(load_tokenizer(files))
        except ConfigError as error:
            assert family.refused in str(error), error
            return f"refused: {error}"
        raise AssertionError(f"expected a refusal that says {family.refused!r}")
    version = family.tokenizer.partition(":")[2] if family.tokenizer.startswith("mistral:") else "tekken"
    common = sources / "mistral" / version / "mistral_common.json" if family.common else None
    compared = check_chat(files, rewrites=family.rewrites, common=common)
    kind = family.tokenizer, opens_thoughts(files)
    if kind in trained:
        return f"{compared}; trained as {trained[kind]}"
    checkpoint = model_folder(folder / "model", files, family.model, rows=family.rows)
    counts = trained_and_exported(folder / "runs", checkpoint)
    trained[kind] = name
    return f"{compared}; trained, {counts['generated']} tokens of the exported agent, trained further"


def main(folder: Path, chosen: list[str]) -> int:
    sources = sources_in(folder)
    fetch(sources)
    names, failed, trained = chosen or list(FAMILIES), [], {}
    for name in names:
        began, place = time.monotonic(), folder / "families" / name
        try:
            said = check_family(name, FAMILIES[name], sources, place, trained)
        except Exception as error:  # whatever it is, the other families are to be seen too
            failed.append(name)
            said = f"FAILED: {type(error).__name__}: {error}"
        shutil.rmtree(place, ignore_errors=True)
        took = f"{time.monotonic() - began:.0f} s"
        print(f"{name} ({FAMILIES[name].sources}): {said} [{took}]", flush=True)
    refused = sum(bool(FAMILIES[name].refused) for name in names)
    held, which = len(names) - refused - len(failed), f": {', '.join(failed)}" if failed else ""
    print(
        f"{held} families held (tokens, masks, forced turns, contents, played turns), {len(trained)} kinds "
        f"of them trained, exported and trained further, {refused} refused as what they are, "
        f"{len(failed)} failed{which}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
