"""A process that is kept runs commands as processes of their own would."""

import os
import subprocess

from tests.one_process import ASK, kept_process


def test_a_process_that_is_kept_runs_commands_as_their_own_would(tmp_path):
    """Words, folder, streams, modules, exit codes and errors; and it is one process."""
    for name in ("one", "other"):
        (tmp_path / name / "launch").mkdir(parents=True)
        (tmp_path / name / "mine.py").write_text(f"NAME = '{name}'\n")
        (tmp_path / name / "launch/told.py").write_text(
            "import os, sys\n"
            "import mine\n"
            "assert __name__ == '__main__'\n"
            "print(os.getpid(), os.getcwd(), mine.NAME, sys.argv[1:], os.environ['TOLD'])\n"
            "print('aside', file=sys.stderr)\n"
            "sys.exit(int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1])\n"
        )
    asked = [("one", ["0", "two words"]), ("one", ["3"]), ("other", ["wrong"]), ("one", ["0"])]
    with kept_process(os.environ) as kept:

        def ask(name: str, *words: str) -> subprocess.CompletedProcess[str]:
            own = os.environ | {"TOLD": f"told {words[0]}"}
            how = {"cwd": tmp_path / name, "capture_output": True, "text": True, **kept.call(own)}
            return subprocess.run([*ASK, "launch.told", *words], check=False, **how)

        said = [ask(name, *words) for name, words in asked]
    assert kept.process != os.getpid()
    assert [one.stdout for one in said] == [
        f"{kept.process} {tmp_path / name} {name} {words} told {words[0]}\n" for name, words in asked
    ]
    assert [one.stderr for one in said] == ["aside\n", "aside\n", "aside\nwrong\n", "aside\n"]
    assert [one.returncode for one in said] == [0, 3, 1, 0]
