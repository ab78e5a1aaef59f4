"""InterCode-SQL on a real server: MariaDB in a temporary folder, compared with the emulation."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from coevo_jax.config import ConfigError
from coevo_jax.envs.env import SPLITS, EnvFault
from coevo_jax.envs.intercode_sql import InterCodeSqlOptions, make_intercode_sql
from tests.envs.mysql_speech import SPEECH
from tests.envs.spider_files import DUMP, write_spider

MARIADBD = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
INSTALL = shutil.which("mariadb-install-db")
CLIENT = shutil.which("mariadb")
SPIDER = os.environ.get("COEVO_SPIDER")
PASSWORD = "s3cr3t-word"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (MARIADBD and INSTALL and CLIENT), reason="no mariadbd here: apt-get install mariadb-server"
    ),
]


class Server:
    """A MariaDB server on a socket in a folder of its own."""

    def __init__(self, folder: Path, lower_case: int = 1):
        self.socket = folder / "server.sock"
        self._data = folder / "data"
        options = ["--no-defaults", f"--datadir={self._data}"]
        root = ["--user=root"] if os.geteuid() == 0 else []
        install = [
            str(INSTALL),
            *options,
            *root,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        subprocess.run(install, check=True, capture_output=True, timeout=300)
        self._command = [
            *(str(MARIADBD), *options, *root, "--skip-networking", f"--socket={self.socket}"),
            *(f"--lower-case-table-names={lower_case}", "--innodb-flush-log-at-trx-commit=0"),
            f"--pid-file={folder}/server.pid",
        ]
        self._log = (folder / "server.log").open("wb")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        for _ in range(600):
            if self.socket.exists() and self._client("SELECT 1").returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError("mariadbd did not start")

    def _client(self, sql: str) -> subprocess.CompletedProcess:
        command = [str(CLIENT), "--no-defaults", f"--socket={self.socket}", "--user=root"]
        return subprocess.run(command, input=sql.encode(), capture_output=True, timeout=120)

    def load(self, sql: str) -> None:
        done = self._client(sql.replace("CREATE USER '", "CREATE USER IF NOT EXISTS '"))
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        self.kill()
        self._log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("mariadb"))
    running.load(f"CREATE USER 'reader'@'localhost' IDENTIFIED BY '{PASSWORD}'")
    running.load("GRANT ALL ON *.* TO 'reader'@'localhost'")
    yield running
    running.stop()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("COEVO_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(server, tmp_path_factory):
    server.load(DUMP)
    return write_spider(tmp_path_factory.mktemp("spider"))


def dsn_of(server: Server) -> str:
    return f"mysql://reader:{PASSWORD}@localhost/?unix_socket={server.socket}"


def both(folder: Path, server: Server) -> tuple:
    emulated = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder)))
    real = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), dsn=dsn_of(server)))
    return emulated, real


def all_tasks(env) -> list:
    return [task for split in SPLITS for task in env.tasks(split)]


@pytest.fixture
def real(folder, server):
    env = make_intercode_sql(
        InterCodeSqlOptions(spider_path=str(folder), dsn=dsn_of(server), query_seconds=1.0)
    )
    yield env
    env.close()


def test_experts_score_one_on_a_server(real):
    assert not real.deterministic
    for task in all_tasks(real):
        assert real.expert(task).reward == 1.0


OTHER_ON_PURPOSE = (
    "SHOW",
    "DESC",
    "EXPLAIN",
    "USE",
    "DATABASE()",
    "INFORMATION_SCHEMA",
    "information_schema",
)


@pytest.mark.parametrize(
    ("sql", "rows"), [pair for pair in SPEECH if not any(w in pair[0] for w in OTHER_ON_PURPOSE)]
)
def test_the_server_answers_as_the_emulation(real, sql, rows):
    """Statements about the schema differ: lower-case tables, int(11), and other databases."""
    task = next(task for task in all_tasks(real) if task.id == "pets/0")
    assert str(real._sandbox(task).run(sql)[: len(rows)]) == str(rows)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE pet",
        "DELETE FROM pet",
        "CREATE TABLE x (a INT)",
        "SELECT 1; DROP TABLE pet",
        "/*!50000 DROP TABLE pet */",
        "WITH a AS (SELECT 1) DELETE FROM pet",
        "EXPLAIN DELETE FROM pet",
        "SELECT SLEEP(9)",
        "SELECT COUNT(*) FROM " + ", ".join(f"pet p{number}" for number in range(14)),
        "SELECT '\x00'",
        "SELECT " + "(" * 9_000 + "1",
        "SELECT '" + "a" * 100_000 + "'",
        "SELECT * FROM mysql.user",
    ],
)
def test_bad_input_is_an_observation_and_the_next_episode_is_unharmed(real, sql):
    task = all_tasks(real)[0]
    real.reset(task)
    start = time.perf_counter()
    result = real.step(f"execute[{sql}]")
    assert time.perf_counter() - start < 8.0
    assert result.observation.startswith("Error executing query: ")
    assert real.step("submit").reward == 0.0
    assert real.expert(task).reward == 1.0


def test_the_server_itself_refuses_writes_that_pass_the_guard(real, monkeypatch):
    monkeypatch.setattr("coevo_jax.envs.intercode_sql.mysql.server.check_statement", lambda sql: None)
    task = next(task for task in all_tasks(real) if task.id == "pets/0")
    for sql in ("DROP TABLE pet", "DELETE FROM pet", "CREATE TABLE x (a INT)", "SELECT 1; DROP TABLE pet"):
        real.reset(task)
        assert "Error executing query: " in real.step(f"execute[{sql}]").observation, sql
    assert real._sandbox(task).run("SELECT COUNT(*) FROM pet") == [(4,)]


def test_endless_rows_are_cut_and_the_instance_goes_on(real):
    task = next(task for task in all_tasks(real) if task.id == "pets/0")
    real.reset(task)
    many = ", ".join(f"pet p{number}" for number in range(9))
    sandbox = real._sandbox(task)
    for sql in (f"SELECT p0.code FROM pets.pet x, {many}", f"SELECT p0.code FROM {many} LIMIT 99999999"):
        assert len(sandbox.run(sql)) == 10_000
    assert real.expert(task).reward == 1.0


def test_a_lost_server_is_a_fault_and_a_new_one_serves_again(folder, server):
    env = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), dsn=dsn_of(server)))
    task = all_tasks(env)[0]
    env.reset(task)
    env.step("execute[SELECT 1]")
    server.kill()
    with pytest.raises(EnvFault, match="server is lost"):
        env.step("execute[SELECT 1]")
    env.close()
    server.start()
    env = make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), dsn=dsn_of(server)))
    assert env.expert(task).reward == 1.0
    env.close()


def test_a_wrong_password_and_a_missing_database_are_clear_errors(folder, server, tmp_path):
    wrong = f"mysql://reader:{PASSWORD}x@localhost/?unix_socket={server.socket}"
    with pytest.raises(ConfigError, match=r"access denied at .* for user reader") as caught:
        make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), dsn=wrong))
    assert PASSWORD not in str(caught.value)
    other = write_spider(
        tmp_path, dump=DUMP + "CREATE DATABASE `absent`; USE `absent`; CREATE TABLE `t` (`a` int);"
    )
    with pytest.raises(ConfigError, match=r"lacks the database 'absent'; load the dump first"):
        make_intercode_sql(InterCodeSqlOptions(spider_path=str(other), dsn=dsn_of(server)))


def test_a_server_that_heeds_case_is_refused(folder, tmp_path):
    server = Server(tmp_path, lower_case=0)
    server.load(DUMP)
    dsn = f"mysql://root@localhost/?unix_socket={server.socket}"
    try:
        with pytest.raises(ConfigError, match=r"has lower_case_table_names=0, expected 1 or 2, .*a new one"):
            make_intercode_sql(InterCodeSqlOptions(spider_path=str(folder), dsn=dsn))
    finally:
        server.stop()


@pytest.mark.skipif(SPIDER is None, reason="COEVO_SPIDER names no folder with InterCode's Spider files")
def test_the_real_data_on_a_server_and_in_the_emulation(server):
    """All golds score 1 on the server too; what differs are ties and orders that SQL leaves open."""
    source = Path(str(SPIDER))
    server.load((source / "ic_spider_dbs.sql").read_text(encoding="utf-8"))
    emulated, real = both(source, server)
    found: Counter[str] = Counter()
    for task in all_tasks(real):
        assert real.expert(task).reward == 1.0, task
        gold = real._task_set.tasks[task.id].gold
        ours, theirs = emulated._sandbox(task).run(gold), real._sandbox(task).run(gold)
        if str(ours) == str(theirs):
            found["same"] += 1
        elif sorted(map(str, ours)) == sorted(map(str, theirs)):
            found["order"] += 1
        else:
            found["rows"] += 1
            assert len(ours) == len(theirs) and "LIMIT" in gold.upper(), (task.id, gold, ours, theirs)
    emulated.close()
    real.close()
    print("emulation against MariaDB:", dict(found), file=sys.stderr)
    assert found["same"] >= 960 and found["rows"] <= 30
