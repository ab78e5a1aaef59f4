"""A file is replaced whole or not at all."""

import errno
import os
import socket
import stat
import subprocess

import pytest

from coevo_jax.files import remove_leftovers, write_whole


def test_text_and_bytes_are_written_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    assert write_whole(path, "é\r\n") == path
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    write_whole(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert [child.name for child in path.parent.iterdir()] == ["a.txt"]
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, step):
    path = write_whole(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


def test_leftovers_of_killed_processes_go_and_what_is_being_written_stays(tmp_path):
    host = socket.gethostname()
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "trajectories").mkdir()
    left = tmp_path / "trajectories" / f".a.parquet.{host}.{dead.pid}.tmp"
    old = tmp_path / ".b.json.another-host.local.17.tmp"
    stays = [
        tmp_path / f".report.html.{host}.{os.getpid()}.tmp",
        tmp_path / ".c.json.another-host.local.17.tmp",
        tmp_path / ".hidden.tmp",
        tmp_path / "a.parquet",
    ]
    for path in (left, old, *stays):
        path.write_text("x")
    os.utime(old, (0, 0))
    assert sorted(remove_leftovers(tmp_path)) == sorted([left, old])
    assert not left.exists() and not old.exists() and all(path.exists() for path in stays)
    assert remove_leftovers(tmp_path) == []
