"""Count the tests that SECURITY.md names, and write the counts into its table.

    python benchmarks/security_table.py

Each row names test files; its last cell is how many cases pytest collects in them, each parameter one. It is the one
place where those counts are made.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from stkvlm_lib.config import ROOT
from stkvlm_lib.files import write_text

SECURITY = ROOT / "SECURITY.md"
ROW = re.compile(r"^(\|.*`tests/test_\w+\.py`.*\|)[^|]*\|$", re.MULTILINE)


def main() -> None:
    text = SECURITY.read_text(encoding="utf-8")
    write_text(SECURITY, with_counts(text, collected(named_files(text))))


def named_files(text: str) -> list[str]:
    """The test files that the table names, each once."""
    return list(dict.fromkeys(name for row in ROW.findall(text) for name in files_of(row)))


def files_of(row: str) -> list[str]:
    return re.findall(r"`(tests/test_\w+\.py)`", row)


def collected(files: list[str], root: Path = ROOT) -> Counter:
    """File -> cases in it. Raises SystemExit where pytest cannot collect them, with what it says."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", *files]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(found.stdout + found.stderr)
    return Counter(line.split("::")[0] for line in found.stdout.splitlines() if "::" in line)


def with_counts(text: str, counts: Counter) -> str:
    """The page with the counts of each row's files in its last cell."""
    return ROW.sub(lambda row: f"{row[1]} {sum(counts[name] for name in files_of(row[1]))} |", text)


if __name__ == "__main__":
    main()
