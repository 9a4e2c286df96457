"""A server of its own, of a build with fail points, and what whoever comes to one of them is ordered to do."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.bridge import Bridge
from harness.cluster import give, scratch
from harness.installation import with_package
from harness.standin import Standin

# Of the server's log, after a failure.
LOG_LINES = 80
NUMBERS = itertools.count(1)


@contextlib.contextmanager
def server(package: str, settings: dict[str, str] | None = None) -> Iterator[tuple[Bridge, Path]]:
    """What `cargo pgrx package` made, at work, and the directory of its orders; after a failure the end of its log is shown."""
    with with_package(Path(package).resolve()), contextlib.closing(Standin()) as standin:
        orders = scratch()
        try:
            # Orders are removed by whoever carries them out.
            give(orders, 0o777)
            variables = {"SNOWFLAKE_BRIDGE_FAILPOINTS": str(orders)}
            with contextlib.closing(Bridge(standin, settings or {}, variables=variables)) as bridge:
                try:
                    yield bridge, orders
                except BaseException:
                    print("\n".join(bridge.cluster.log_text().splitlines()[-LOG_LINES:]), flush=True)
                    raise
        finally:
            shutil.rmtree(orders, ignore_errors=True)


class Order:
    """What whoever comes to a place next has to do."""

    def __init__(self, orders: Path, place: str, what: str) -> None:
        self.file = orders / f"{place}@{what.split()[0]}"
        # Complete before it is found.
        (orders / "new").write_text(what)
        (orders / "new").rename(self.file)

    def is_taken(self) -> bool:
        """Whether somebody has come there."""
        return not self.file.exists()


class Stop:
    """Whoever comes to a place next stands there until it is let go: an order that is a pipe is read until it is written.

    For places of one thread: a second one that came there would stand as well, and not be told."""

    def __init__(self, orders: Path, place: str) -> None:
        # The one before is still there when the next one is made.
        self.file = orders / f"{place}@stop-{next(NUMBERS)}"
        os.mkfifo(self.file)
        self.pipe: int | None = None

    def is_taken(self) -> bool:
        """Whether somebody has come there and stands."""
        try:
            self.pipe = os.open(self.file, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            # Nobody reads.
            if error.errno != errno.ENXIO:
                raise
        return self.pipe is not None

    def let_go(self) -> None:
        """What the next one has to do must be ordered by now."""
        assert self.pipe is not None, "nobody stands there"
        os.write(self.pipe, b"sleep 0")
        os.close(self.pipe)
