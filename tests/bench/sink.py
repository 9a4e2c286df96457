"""The object store that takes files and keeps nothing, as a process; see `sink/main.rs`."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Arrived:
    """What has arrived so far: whole objects, their bytes, and when the last one was whole, in seconds since 1970."""

    objects: int
    bytes: int
    last: float


class Sink:
    """One running sink."""

    def __init__(self) -> None:
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        subprocess.run(
            ["cargo", "build", "--quiet", "--release", "--package", "sink", "--target-dir", str(target)], check=True, cwd=ROOT
        )
        self.process = subprocess.Popen(
            [target / "release/sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        self.endpoint = f"127.0.0.1:{int(self.process.stdout.readline())}"

    def arrived(self) -> Arrived:
        """What has arrived so far."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.endpoint}/stats", timeout=60) as answer:
            return Arrived(**json.load(answer))

    def close(self) -> None:
        """Ends the process, which waits for the end of its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
