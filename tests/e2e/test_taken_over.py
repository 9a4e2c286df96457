"""An upload that somebody else takes over while a worker is at it: the loser records nothing, and the rows are there once.

One worker plays both parts here, with two claims: a second one is kept away by its lock. What a claim is taken away by is
what a worker does that starts and finds an upload in flight.
"""

from __future__ import annotations

import pytest

from harness import wait
from harness.bridge import Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]
# Until the test lets go.
HELD = {"delay_ms": 300_000}


def take_over(bridge: Bridge, execution_id: str = "run-1") -> None:
    """Puts an upload in flight back in the queue."""
    taken = bridge.admin.execute(
        "update snowflake_bridge.uploads set state = 'retry', next_attempt_at = now() "
        "where execution_id = %s and state in ('claimed', 'staged', 'copying')",
        [execution_id],
    )
    assert taken.rowcount == 1


def lost(bridge: Bridge) -> bool:
    """Whether the worker says that it has lost a claim."""
    return "was taken over while this worker was at it" in bridge.cluster.log_text()


@pytest.mark.parametrize(
    ("held", "begins"),
    [
        ({"kind": "objectstore", "method": "PUT"}, {"kind": "objectstore"}),
        ({"kind": "query", "sql": r"^\s*begin"}, {"sql": "begin"}),
        ({"kind": "query", "sql": r"^\s*copy into"}, {"sql": "copy into"}),
        ({"kind": "query", "sql": r"^\s*commit"}, {"sql": "commit"}),
    ],
    ids=["staging", "begin", "copy", "commit"],
)
def test_in_flight(bridge: Bridge, user: User, held: dict[str, str], begins: dict[str, str]) -> None:
    bridge.standin.fault(held, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading(begins, mark)
    take_over(bridge)
    bridge.completed("run-1")
    bridge.standin.clear_faults()
    wait.until(lambda: lost(bridge), "the first claim is lost")
    upload = bridge.upload("run-1")
    assert (upload["state"], upload["claim_count"], upload["row_count"]) == ("completed", 2, len(ROWS))
    assert bridge.row_count(user) == len(ROWS)
    # What the loser may still have had on the way has arrived.
    wait.until(lambda: all(record["finished"] for record in bridge.standin.audit(mark)), "nothing is held any more")
    assert bridge.row_count(user) == len(ROWS)
    assert bridge.execution("run-1")["snowflake_status"] == "completed"


def test_a_loser_leaves_the_files_of_the_winner(bridge: Bridge, user: User) -> None:
    """Its COMMIT is answered, and yet it has nothing to tidy up: the files are what the other one loads."""
    commit = {"kind": "query", "sql": r"^\s*commit"}
    bridge.standin.fault(commit, HELD)
    bridge.standin.fault({"kind": "query", "sql": r"^\s*delete"}, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "commit"}, mark)
    take_over(bridge)
    bridge.uploading({"sql": "delete"}, mark)
    bridge.standin.clear_faults(commit)
    wait.until(lambda: lost(bridge), "the first claim is lost")
    assert not bridge.account.statements("REMOVE", mark)
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(ROWS)


def test_a_failure_of_the_loser(bridge: Bridge, user: User) -> None:
    """What the first claim failed with is nothing to the second, and no attempt of it."""
    bridge.standin.fault({"kind": "query", "sql": r"^\s*create .*table"}, HELD | {"status": 400})
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "create"}, mark)
    take_over(bridge)
    bridge.completed("run-1")
    bridge.standin.clear_faults()
    wait.until(lambda: lost(bridge), "the first claim is lost")
    assert bridge.upload("run-1")["state"] == "completed"
    assert bridge.row_count(user) == len(ROWS)
