"""Exports in other programs: transformers 4 and the pinned one, and llama.cpp's converter.

python -m tests.real.exports FOLDER     what is downloaded and made lies in FOLDER
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from coevo_jax.stored.export import export_agent
from tests.real.model_files import FAMILIES, fetch, old_python, sources_in, tokenizer_folder
from tests.real.model_runs import ADAPTERS, model_folder, run_from, write_logits

TORCH = "torch==2.13.0"  # PyPI's build for CPUs where an index has it under this name
CASES = {  # family, overrides of the run, type of the weights
    "llama31": (),
    "qwen25": (),
    "qwen3": (),
    "mistral_nemo": (),
    "gemma3": (),
    "qwen3_instruct_2507": (ADAPTERS,),
}
# llama.cpp's converter asserts a row of the embedding for every token; Gemma 3 has one token more.
NOT_CONVERTED = ("gemma3-float32",)
HALF = "qwen3"  # exported in bfloat16, too
ROOT = Path(__file__).resolve().parents[2]


def main(folder: Path) -> int:
    sources = sources_in(folder)
    fetch(sources)
    folders = []
    for name, overrides in CASES.items():
        family = FAMILIES[name]
        files = tokenizer_folder(sources, folder / name / "tokenizer", family)
        checkpoint = model_folder(folder / name / "model", files, family.model, rows=family.rows)
        run = run_from(folder / name, "run", checkpoint, "rounds=0", *overrides)
        for dtype in ("float32", "bfloat16") if name == HALF else ("float32",):
            out = folder / "exports" / f"{name}-{dtype}"
            out.parent.mkdir(exist_ok=True)
            export_agent(run.folder, out, agent="target", form="merged", dtype=dtype)
            write_logits(run, out, dtype=dtype)
            folders.append(out)
    old = old_python(sources)
    subprocess.run([str(old), "-m", "pip", "install", "-q", TORCH], check=True)
    held = []
    for python in (str(old), sys.executable):
        done = _run([python, str(ROOT / "tests/real/load_exports.py"), *map(str, folders)], sources)
        said = [line for line in done.stdout.splitlines() if line.startswith(("transformers", "{"))]
        version, rows = said[0].split()[1], [json.loads(line) for line in said[1:]]
        largest = max((row["logits"] for row in rows), default=0.0)
        held.append(len(rows) == len(folders))
        print(f"transformers {version}: {len(rows)} of {len(folders)} exports, logits within {largest:.1e}")
        if not held[-1]:
            print(done.stderr[-3000:])
    wanted = [one for one in folders if one.name not in NOT_CONVERTED]
    converted = [_converted(old, sources, one) for one in wanted]
    print(f"llama.cpp's converter: {sum(converted)} of {len(wanted)} exports")
    return 0 if all(held) and all(converted) else 1


def _run(command: list[str], sources: Path) -> subprocess.CompletedProcess[str]:
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(sources / "llama.cpp" / "gguf-py")}
    return subprocess.run(command, cwd=sources, env=offline, capture_output=True, text=True, check=False)


def _converted(python: Path, sources: Path, export: Path) -> bool:
    """Whether llama.cpp's converter takes a folder, and the file holds every tensor and the chat template."""
    script, out = sources / "llama.cpp" / "convert_hf_to_gguf.py", export.with_suffix(".gguf")
    done = _run([str(python), str(script), str(export), "--outfile", str(out), "--outtype", "f32"], sources)
    if done.returncode:
        print(f"{export.name}: {done.stderr.strip().splitlines()[-1]}")
        return False
    reader = (
        "import sys, gguf; r = gguf.GGUFReader(sys.argv[1]);"
        "print(len(r.tensors), 'tokenizer.chat_template' in r.fields)"
    )
    said = _run([str(python), "-c", reader, str(out)], sources).stdout.split()
    out.unlink()
    return len(said) == 2 and int(said[0]) > 0 and said[1] == "True"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
