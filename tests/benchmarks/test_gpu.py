"""The measuring of a machine with a GPU: every part runs on a CPU, and what is cut off keeps what it has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_tables import FIGURES, TABLES, read_figures, write_tables

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def step(model: str, name: str, rate: float) -> dict:
    numbers = dict.fromkeys(("tokens", "tflops", "peak_gib", "first_step", "loss", "grad_norm"), 1.0)
    return {
        "part": f"step {model} {name}",
        "row": "many pairs",
        "tokens_per_second": rate,
        "utilisation": 0.5,
        "peak_of": "device",
        **numbers,
    }


def test_tables_are_of_what_is_there_so_far(tmp_path):
    write_tables(tmp_path)
    assert (tmp_path / TABLES).read_text().strip() == ""
    lines = [step("0.6b", "flash", 90.0), step("1.7b", "flash", 40.0), step("0.6b", "dense", 20.0)]
    ended = {"part": "roll-outs", "took": 9.0, "ended": "cut off after 9 s"}
    text = "".join(f"{json.dumps(one)}\n" for one in (*lines, ended))
    (tmp_path / FIGURES).write_text(text + '{"part": "roll-')
    assert len(read_figures(tmp_path)) == 4  # the line that is still written is not one
    write_tables(tmp_path)
    said = (tmp_path / TABLES).read_text()
    assert "0.6b, many pairs: 4.50 times dense; the goal is met." in said
    assert "1.7b, many pairs: 50.0% of the declared rate; the goal is met." in said
    assert "- roll-outs: cut off after 9 s" in said


def test_a_part_that_takes_longer_than_its_time_is_cut_off_and_what_it_started_ends(tmp_path):
    sleep = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    part = gpu.Part(name="tests", share=1, command=(sys.executable, "-c", sleep))
    result = gpu.play(part, 0.5, tmp_path, tiny=True)
    assert result["ended"].startswith("cut off after") and result["took"] < 20
    broken = gpu.Part(
        name="tests", share=1, command=(sys.executable, "-c", "raise SystemExit('no such thing')")
    )
    assert gpu.play(broken, 30, tmp_path, tiny=True)["ended"] == "exit code 1: no such thing"


def test_words_that_cannot_be_used_are_refused(tmp_path, capsys):
    (tmp_path / "kept").write_text("")
    for words, message in (
        (["--out", str(tmp_path)], "found files, expected a new or empty folder"),
        (
            ["--out", str(tmp_path / "new"), "--parts", "nothing"],
            "--parts: found 'nothing', expected of 'machine'",
        ),
    ):
        with pytest.raises(SystemExit):
            gpu.parse(words)
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    done = run("--out", tmp_path / "out", "--tiny", "--seconds", 1200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    figures = read_figures(tmp_path / "out")
    assert [one["part"] for one in figures if "ended" in one] == gpu.NAMES
    attention = [one for one in figures if one["part"] == "attention" and "row" in one]
    assert len(attention) == 6  # two lengths of three kinds of rows
    assert all(max(one["differences"]["kernels"]) < 1e-5 for one in attention)
    steps = {
        (one["part"], one["row"]): one for one in figures if one["part"].startswith("step ") and "row" in one
    }
    assert len(steps) == 12
    for (part, row), one in steps.items():  # the same rows, losses and gradients by either attention
        other = steps[part.replace("flash", "dense"), row]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["padding"] < 0.05 and one["tokens"] == other["tokens"]
    rollouts = [one for one in figures if one["part"] == "roll-outs" and "slots" in one]
    assert [(one["slots"], one["what"]) for one in rollouts] == [
        (slots, what) for slots in (2, 4) for what in ("decoding alone", "episodes")
    ]
    last = {one["part"]: one for one in figures if "ended" in one}
    assert last["tests"]["passed"] > 0 and not last["tests"]["not_passed"]
    assert "round-01/evaluate_target" in last["quickstart"]["phases"]
    said = (tmp_path / "out" / TABLES).read_text()
    assert "Attention, forward and backward" in said and "Not whole" not in said
    assert done.stdout.rstrip().endswith(said.rstrip())


@pytest.mark.slow
def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = run("--out", tmp_path / "out", "--parts", "machine")
    assert done.returncode == 2 and "error: JAX finds no GPU here" in done.stderr
