"""A real MySQL server in a temporary folder, for the slow tests that compare with one.

COEVO_MYSQLD names the server program (or a script that runs it with its libraries); without it `mysqld` is
looked for on the PATH.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pymysql
from pymysql.constants import CLIENT

MYSQLD = os.environ.get("COEVO_MYSQLD") or shutil.which(
    "mysqld", path=f"{os.environ.get('PATH', '')}:/usr/sbin"
)
NO_SERVER = (
    "no MySQL server here: COEVO_MYSQLD names no program, and there is no mysqld on the PATH "
    "(tests/real/mysqld.sh FOLDER makes one)"
)
SMALL = ("--innodb-redo-log-capacity=8M", "--innodb-data-file-path=ibdata1:5M:autoextend")
START_SECONDS = 120


class Server:
    """A MySQL server on a socket, and on a port of this machine where one is given."""

    def __init__(self, folder: Path, *options: str, lower_case: int = 1):
        self.socket = folder / "s.sock"
        self._folder = folder
        root = ["--user=root"] if os.geteuid() == 0 else []
        self._command = [
            *(str(MYSQLD), *root, f"--datadir={folder}/data", *SMALL),
            *(
                f"--lower-case-table-names={lower_case}",
                f"--socket={self.socket}",
                f"--pid-file={folder}/pid",
            ),
            *(
                "--mysqlx=OFF",
                "--skip-log-bin",
                "--secure-file-priv=NULL",
                "--innodb-flush-log-at-trx-commit=0",
                *options,
            ),
        ]
        with (folder / "initialize.log").open("wb") as log:
            initialize = [*self._command, "--initialize-insecure"]
            subprocess.run(initialize, check=True, stdout=log, stderr=log, timeout=300)
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if self.socket.exists():
                try:
                    self.connect().close()
                    return
                except pymysql.Error:
                    pass
            time.sleep(0.1)
        raise RuntimeError(f"mysqld did not start, see {self._folder}/server.log")

    def connect(self, user: str = "root", **options: object) -> pymysql.Connection:
        """A connection on the socket."""
        return pymysql.connect(
            user=user,
            unix_socket=str(self.socket),
            charset="utf8mb4",
            client_flag=CLIENT.MULTI_STATEMENTS,
            autocommit=True,
            **options,  # pyright: ignore[reportArgumentType]
        )

    def load(self, sql: str) -> None:
        """Run statements, such as a dump's."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql.replace("CREATE USER '", "CREATE USER IF NOT EXISTS '"))
            while cursor.nextset():
                pass

    def analyze(self, databases: list[str]) -> None:
        """Bring the statistics of all tables up to date, without which the plans differ from run to run."""
        with self.connect() as connection, connection.cursor() as cursor:
            for database in databases:
                cursor.execute(f"SHOW TABLES FROM `{database}`")
                for (table,) in cursor.fetchall():
                    cursor.execute(f"ANALYZE TABLE `{database}`.`{table}`")
                    cursor.fetchall()

    def grant(self, user: str, databases: list[str]) -> None:
        """A user without a password who may read these databases."""
        names = [database.replace("_", "\\_") for database in databases]
        grants = [f"GRANT SELECT ON `{name}`.* TO '{user}'@'localhost'" for name in names]
        self.load(f"CREATE USER '{user}'@'localhost'; {'; '.join(grants)}")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)
        Path(f"{self.socket}.lock").unlink(missing_ok=True)
