"""`python -m chaos.panics PACKAGE`: a panic at each place of an upload's way, on the worker's main thread and on its network thread,
costs that upload and nothing else.

PACKAGE is what `cargo pgrx package` made of a build with fail points. Ends with one line, `panics: places=… failed=… completed=…`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from psycopg.types.json import Jsonb

from chaos.ordered import Order, server
from harness import wait
from harness.bridge import RESULTS, Bridge
from harness.standin import User

MAIN = ("claimed", "reading", "read", "read-recorded", "recording", "completing", "mirroring", "mirrored")
NETWORK = ("put", "put-done", "staged", "prepared", "BEGIN", "intent-recorded", "COPY", "loaded", "COMMIT", "committed", "clean-up")
# Where a worker that cannot write down the end of an upload starts anew, in order.
STARTS_ANEW = ("completing",)
FINAL = ("completed", "failed")


def main() -> int:
    with server(sys.argv[1]) as (bridge, orders):
        found = play(bridge, orders)
    print(f"panics: places={found.total()} failed={found['failed']} completed={found['completed']}")
    return 0


def play(bridge: Bridge, orders: Path) -> Counter[str]:
    """One place after the other, with one worker. Returns what became of the uploads that were hit."""
    user = bridge.ready()
    others = bridge.account.add_user("OTHERS", database="OTHERS_DB")
    bridge.configure(others, name="others")
    bridge.run("first", [{"n": 1}])
    bridge.completed("first")
    worker = bridge.worker()
    found: Counter[str] = Counter()
    for place in (*MAIN, *NETWORK):
        found[hit(bridge, orders, place)] += 1
        before, worker = worker, bridge.worker()
        assert (worker != before) == (place in STARTS_ANEW), f"the worker has survived the panic at {place}"
        once(bridge, user, f"hit-{place}")
    assert bridge.row_count(others) == found.total()
    return found


def hit(bridge: Bridge, orders: Path, place: str) -> str:
    """Has an upload panic there. Returns what became of it, and has it completed in the end."""
    order = Order(orders, place, "panic")
    # The panic comes while the request is under way.
    if place == "put":
        bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 300_000})
    elif place.isupper():
        bridge.standin.fault({"kind": "query", "sql": rf"^\s*{place}"}, {"delay_ms": 300_000})
    bridge.run(f"hit-{place}", [{"n": 1}, {"n": 2}])
    wait.until(order.is_taken, f"somebody panics at {place}")
    bridge.standin.clear_faults()
    bridge.run(f"beside-{place}", [{"n": 1}], snowflake_options=Jsonb({"config": "others"}))
    bridge.completed(f"beside-{place}")

    def ended() -> str | None:
        state = bridge.upload(f"hit-{place}")["state"]
        return state if state in FINAL else None

    state = wait.until(ended, f"the upload that panicked at {place} has ended")
    upload = bridge.upload(f"hit-{place}")
    assert upload["crash_count"] == 0, f"{place}: {upload}"
    print(f"{place}: {state} after {upload['attempt_count']} attempts: {upload['error_message'] or ''}")
    if state == "failed":
        assert "panic" in upload["error_message"] or "fail point" in upload["error_message"], upload["error_message"]
        bridge.call("retry_upload", id=upload["id"])
        wait.until(lambda: bridge.upload(f"hit-{place}")["state"] == "completed", f"{place}: it is completed after all")
    bridge.completed(f"hit-{place}")
    return str(state)


def once(bridge: Bridge, user: User, execution: str) -> None:
    """Its rows are there, each once."""
    rows = bridge.results(user, "count(*), count(distinct N)", RESULTS, f"where EXECUTION_ID = '{execution}'")
    assert rows == [(2, 2)], f"{execution}: {rows}"


if __name__ == "__main__":
    sys.exit(main())
