"""What the system refuses is told as what it was: a read or a write, of which file, and what helps."""

import errno
import os
from pathlib import Path

import pytest

from coevo_jax.commands.cli import explain
from coevo_jax.commands.compile import main as compile_main
from coevo_jax.commands.data import main as data_main
from coevo_jax.commands.refused_files import refusal
from coevo_jax.commands.study import main as study_main
from coevo_jax.commands.sweep import main as sweep_main
from coevo_jax.files import require_writable


def failed(number: int, path: object) -> OSError:
    return OSError(number, os.strerror(number), path if path is None else str(path))


@pytest.fixture
def forbidden(monkeypatch):
    """Takes modes away, as they are for whoever is not root: forbidden(path, os.R_OK)."""
    taken, real = {}, os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode, **options: not (taken.get(Path(path), 0) & mode) and real(path, mode, **options),
    )
    return lambda path, mode: taken.update({path: mode})


def test_a_read_that_is_not_permitted_is_told_as_one(tmp_path, forbidden):
    path = tmp_path / "results.json"
    path.write_text("{}")
    forbidden(path, os.R_OK)
    assert refusal(failed(errno.EACCES, path)) == f"cannot read {path}: Permission denied"


def test_a_write_that_is_not_permitted_is_told_as_one(tmp_path, forbidden):
    path = tmp_path / "report.html"
    assert refusal(failed(errno.EACCES, path)) == f"cannot write {path}: Permission denied"
    path.write_text("")
    forbidden(path, os.W_OK)
    assert refusal(failed(errno.EPERM, path)) == f"cannot write {path}: Operation not permitted"


def test_a_folder_that_cannot_be_entered_is_told_as_one(tmp_path, forbidden):
    forbidden(tmp_path, os.X_OK)
    path = tmp_path / "gone" / "x.json"
    assert refusal(failed(errno.EACCES, path)) == f"cannot reach {path}: Permission denied"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EDQUOT, "Disk quota exceeded; make room within the quota"),
        (errno.EROFS, "Read-only file system; nothing can be written there"),
        (errno.EISDIR, "Is a directory; a file was expected"),
        (errno.ENOTDIR, "Not a directory; a folder was expected on the way"),
    ],
)
def test_every_refusal_has_its_own_advice(tmp_path, number, words):
    code, told = explain(failed(number, tmp_path / "x"))
    assert (code, told) == (2, f"cannot write {tmp_path / 'x'}: {words}")


def test_only_who_can_go_on_is_told_how(tmp_path):
    error = failed(errno.ENOSPC, None)
    assert explain(error) == (2, "cannot write: No space left on device; make room")
    error.add_note("continue with --resume runs/x")
    assert explain(error)[1] == (
        "cannot write: No space left on device; make room; continue with --resume runs/x"
    )
    assert explain(KeyboardInterrupt()) == (130, "interrupted")


@pytest.mark.parametrize(
    "error", [failed(errno.EACCES, None), failed(errno.ECONNREFUSED, None), OSError("of a library")]
)
def test_what_is_no_file_keeps_its_traceback(error):
    assert explain(error) == (1, None)


def test_what_can_be_written_is_learnt_without_leaving_anything(tmp_path):
    require_writable(tmp_path / "new" / "page.html")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(OSError) as caught:
            require_writable(path)
        assert refusal(caught.value)


@pytest.mark.parametrize(
    ("main", "line", "work"),
    [
        (compile_main, ["quickstart", "--json", "{at}"], "coevo_jax.commands.actions.compile.preflight"),
        (
            sweep_main,
            ["quickstart", "--losses", "sigmoid", "--table", "{folder}"],
            "coevo_jax.commands.actions.sweep.run_sweep",
        ),
        (
            study_main,
            ["quickstart-eto", "--seeds", "1", "--rows", "{at}.jsonl"],
            "coevo_jax.commands.actions.study.run_cells",
        ),
        (
            data_main,
            ["convert", "{set}", "--to", "messages", "--out", "{at}.jsonl"],
            "coevo_jax.commands.actions.data.convert",
        ),
    ],
)
def test_work_that_cannot_be_written_down_is_not_begun(main, line, work, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "set.jsonl").write_text("")
    (tmp_path / "x.md").mkdir()
    places = {"folder": tmp_path / "x.md", "at": tmp_path / "file" / "x", "set": tmp_path / "set.jsonl"}

    def begun(*_arguments, **_options):
        pytest.fail("the work has begun")

    monkeypatch.setattr(work, begun)
    with pytest.raises(OSError) as caught:
        main([word.format(**places) for word in line])
    assert "cannot write" in str(explain(caught.value)[1])
