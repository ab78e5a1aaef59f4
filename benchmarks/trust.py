"""What this code brings in and gives away: known vulnerabilities, secrets, licences. Needs the network.

python -m benchmarks.trust vulnerabilities      pip-audit, of the packages of this environment
python -m benchmarks.trust secrets              detect-secrets, of every file that git tracks
python -m benchmarks.trust licences             pip-licenses, of the packages of this environment
python -m benchmarks.trust licences --write docs/trust.md

Each tool is installed, pinned, into a temporary environment of its own and never into this one. The first two
exit with 1 where something was found. The exit code is 2, with a line that says why, where a check could not
be made: the tool cannot be installed or gives no answer, or the package index has no advisories.
"""

import argparse
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.report.markdown import replace_table, table

ROOT = Path(__file__).resolve().parent.parent
TOOLS = {
    "vulnerabilities": "pip-audit==2.10.1",
    "secrets": "detect-secrets==1.5.0",
    "licences": "pip-licenses==5.5.5",
}


REVIEWED = Path(__file__).with_name("secrets.json")
DIGESTS = r"docs/study/results/.*|benchmarks/secrets\.json"  # rows of commits' and configs' digests
LOOKED_AT = re.compile(r"GPL|General Public|MPL|Mozilla|UNKNOWN")


class NotChecked(Exception):
    """A check could not be made."""


def installed(requirement: str, folder: Path) -> Path:
    """The folder of programs of a new environment that holds a package."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    programs = folder / "bin"
    quiet = ["install", "--quiet", "--disable-pip-version-check"]
    command = [str(programs / "python"), "-m", "pip", *quiet, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            done.stderr.strip()
        ]
        raise NotChecked(f"{requirement} cannot be installed; is a package index within reach? {said[-1]}")
    return programs


def answer(*command: object) -> Any:
    """What a tool says as JSON, whatever its exit code.

    Raises:
      NotChecked: it says none, with its own words.
    """
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        name = Path(str(command[0])).name
        raise NotChecked(f"{name} ended with {done.returncode} and no answer: {said[:500]}") from None


def vulnerabilities(programs: Path) -> tuple[int, str]:
    """Known vulnerabilities of the packages that are installed here.

    Raises:
      NotChecked: none was found, but of some the index tells nothing: they have not been looked up.
    """
    where = ["--path", sysconfig.get_paths()["purelib"]]
    found = answer(programs / "pip-audit", *where, "--format", "json", "--progress-spinner", "off")
    packages = found["dependencies"]
    rows = [
        (one["name"], one["version"], vulnerability["id"], ", ".join(vulnerability["fix_versions"]) or "none")
        for one in packages
        for vulnerability in one.get("vulns", [])
    ]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    words = f"{len(packages)} packages, {len(rows)} known vulnerabilities, {len(skipped)} NOT LOOKED UP"
    words += f": the index has no advisories for {', '.join(skipped[:5])} …" if skipped else ""
    if skipped and not rows:
        raise NotChecked(words)
    return len(rows), "\n\n".join([table(("package", "version", "known as", "mended in"), rows), words])


def secrets(programs: Path) -> tuple[int, str]:
    """What looks like a key or a password in a file that git tracks, and was not looked at before.

    `secrets.json` has what a person found to be none, such as `mysql://user:password@host` in a text.
    """
    found = answer(programs / "detect-secrets", "scan", "--no-verify", "--exclude-files", DIGESTS)["results"]
    known = {
        (path, digest) for path, digests in json.loads(REVIEWED.read_text()).items() for digest in digests
    }
    hits = [(path, one) for path, own in found.items() for one in own]
    rows = [
        (path, str(one["line_number"]), one["type"], one["hashed_secret"])
        for path, one in hits
        if (path, one["hashed_secret"]) not in known
    ]
    header = ("file", "line", "looks like", "for secrets.json, if it is none")
    words = f"{len(hits)} look like one, {len(hits) - len(rows)} of them known to be none, {len(rows)} new."
    return len(rows), "\n\n".join([table(header, rows), words])


def licences(programs: Path) -> tuple[int, str]:
    """The licence of every package that is installed here, and which ask for more than a notice."""
    found = answer(programs / "pip-licenses", f"--python={sys.executable}", "--format=json")
    rows = [(one["Name"], one["Version"], " ".join(one["License"].split())[:60]) for one in found]
    noted = [f"{name} ({licence})" for name, _, licence in rows if LOOKED_AT.search(licence)]
    words = f"{len(rows)} packages. Copyleft, or not told: {', '.join(noted)}."
    return 0, "\n\n".join([table(("package", "version", "licence"), rows), words])


CHECKS: dict[str, Callable[[Path], tuple[int, str]]] = {
    "vulnerabilities": vulnerabilities,
    "secrets": secrets,
    "licences": licences,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trust",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write what comes out into a page, too")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            number, text = CHECKS[args.check](installed(TOOLS[args.check], Path(folder) / "tool"))
    except NotChecked as error:
        print(f"error: {args.check}: not checked: {error}", file=sys.stderr)
        return 2
    print(text)
    if args.write:
        replace_table(args.check, text, args.write)
    return 1 if number and args.check != "licences" else 0


if __name__ == "__main__":
    sys.exit(main())
