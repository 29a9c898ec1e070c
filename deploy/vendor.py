"""Fetches the front end's third-party files into static/vendor/, and tells whether they are the ones we chose.

static/vendor/VERSIONS.md is the list: one table row a package, with its version and the digest of its folder. Only this
program, called by `make vendor`, uses npm; everybody else uses the committed files.

    python deploy/vendor.py            fetch every row anew; fails if a folder's digest is not the row's
    python deploy/vendor.py --check    compare the folders with the list, without npm
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"
LIST = VENDOR / "VERSIONS.md"


@dataclass(frozen=True)
class Package:
    """One row of VERSIONS.md."""

    folder: str
    name: str
    version: str
    licence: str
    reason: str
    files: tuple[str, ...]
    """Patterns of the files we keep, relative to the package; `*` crosses folders."""
    digest: str


def listed(text: str) -> list[Package]:
    """The rows of VERSIONS.md's table, in its order. A row of another shape raises ValueError."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [_package(row) for row in rows]


def _package(row: str) -> Package:
    cells = [cell.strip().strip("`") for cell in row.strip().strip("|").split("|")]
    if len(cells) != 7:
        raise ValueError(f"VERSIONS.md: seven columns are expected here: {row}")
    folder, name, version, licence, reason, files, digest = cells
    return Package(folder, name, version, licence, reason, tuple(f.strip("`") for f in files.split()), digest)


def digest(folder: Path) -> str:
    """SHA-256 over `sha256sum`'s lines of all files below `folder`, in order of their names: any change shows."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def faults(vendor: Path = VENDOR) -> Iterator[str]:
    """What differs between the list and the folders, one sentence each; nothing when all is well."""
    packages = listed((vendor / "VERSIONS.md").read_text(encoding="utf-8"))
    for package in packages:
        found = digest(vendor / package.folder) if (vendor / package.folder).is_dir() else "missing"
        if found != package.digest:
            yield f"static/vendor/{package.folder}: VERSIONS.md says {package.digest}, the files say {found}."
    for path in sorted(vendor.iterdir()):
        if path.is_dir() and path.name not in {package.folder for package in packages}:
            yield f"static/vendor/{path.name} does not stand in VERSIONS.md."


def fetch(package: Package) -> None:
    """Replaces the package's folder by the chosen files of its published archive (npm verifies the archive)."""
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}", "--pack-destination", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).glob("*.tgz")
        target = VENDOR / package.folder
        shutil.rmtree(target, ignore_errors=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                _keep(tar, member, package.files, target)


def _keep(tar: tarfile.TarFile, member: tarfile.TarInfo, patterns: tuple[str, ...], target: Path) -> None:
    """Writes one member below `target` if it is a plain file that a pattern names. No path of the archive is obeyed."""
    name = member.name.removeprefix("package/")
    content = tar.extractfile(member) if member.isfile() else None
    if content is None or ".." in name.split("/") or not any(fnmatch(name, pattern) for pattern in patterns):
        return
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (target / name).write_bytes(content.read())


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    if not arguments:
        for package in listed(LIST.read_text(encoding="utf-8")):
            fetch(package)
            print(f"{package.folder}: {package.name} {package.version}")
    found = list(faults())
    print("\n".join(found) or "static/vendor is what VERSIONS.md says.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
