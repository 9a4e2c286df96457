"""A server of its own for a test: PG_CONFIG's, linked file by file, with another build of the extension in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.cluster import bindir, scratch


@contextlib.contextmanager
def with_package(package: Path) -> Iterator[None]:
    """Puts what `cargo pgrx package` left in `package` into a copy of the server, which the harness then uses."""
    original = bindir()
    root = scratch()
    try:
        copies = {}
        for kind in ("bindir", "pkglibdir", "sharedir"):
            place = Path(run([str(original / "pg_config"), f"--{kind}"]).strip())
            copies[kind] = root / place.relative_to("/")
            copies[kind].mkdir(parents=True, exist_ok=True)
            run(["cp", "--archive", "--symbolic-link", "--force", f"{place.resolve()}/.", str(copies[kind])])
        # A server finds its files from where its program really is.
        programs = copies["bindir"]
        for program in ("postgres", "initdb", "psql", "pg_config"):
            run(["cp", "--remove-destination", "--dereference", str(original / program), str(programs)])
        # The package has the paths of the server that it was built for, which may be another copy of this one.
        for kind, files in (("pkglibdir", "*.so"), ("sharedir", "extension/*.*")):
            for file in package.rglob(files):
                place = copies[kind] / ("extension" if kind == "sharedir" else "") / file.name
                run(["cp", "--remove-destination", str(file), str(place)])
        os.environ["PG_CONFIG"] = str(programs / "pg_config")
        yield
    finally:
        os.environ["PG_CONFIG"] = str(original / "pg_config")
        shutil.rmtree(root, ignore_errors=True)


def run(command: list[str]) -> str:
    """What the command prints; its failure is ours."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
