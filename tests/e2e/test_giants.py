"""Results of extraordinary size and shape, and disks that are too small for them: they are loaded, or lost with a clear error, and
those of others go on. GIANT_MB makes them larger: 200 is the long form."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import disks, wait
from harness.bridge import APPLICATION, RESULTS, TABLE, Bridge
from harness.cluster import give, scratch
from harness.standin import User

GIANT_MB = int(os.environ.get("GIANT_MB") or 20)
# The bytes of the longest text that Snowflake holds.
LARGEST = 128 << 20
# More than any value may have in Snowflake.
TOO_LARGE_MB = 140
OTHERS = Jsonb({"config": "others"})


def two_users(bridge: Bridge) -> tuple[User, User]:
    """One whose uploads are in trouble, and one who must not notice."""
    user = bridge.ready()
    others = bridge.account.add_user("OTHERS", database="OTHERS_DB")
    bridge.configure(others, name="others")
    return user, others


def finish(bridge: Bridge, execution: str, expression: str) -> None:
    """An execution whose result the server computes, so that nobody else has to hold it."""
    bridge.start_execution(execution)
    bridge.app.execute(
        f"update {TABLE} set status = 'completed', result_rows = ({expression}) where execution_id = %s", [execution]
    )


def others_go_on(bridge: Bridge, execution: str) -> None:
    """An upload of the other user, from its start to its end."""
    bridge.run(execution, [{"n": 1}], snowflake_options=OTHERS)
    bridge.completed(execution)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte of the server user's."""
    path = scratch()
    with disks.mounted(path, "1m"):
        yield path
    with contextlib.suppress(OSError):
        path.rmdir()


NOISE = "select {} from generate_series(1, 100000) n"


def test_a_full_disk(make_bridge: Callable[..., Bridge], small_disk: Path) -> None:
    spool = small_disk / "spool"
    spool.mkdir()
    give(spool, 0o700)
    bridge = make_bridge(
        {
            "snowflake_bridge.spool_directory": str(spool),
            "snowflake_bridge.min_free_space": "0",
            "snowflake_bridge.max_attempts": "3",
            "snowflake_bridge.retry_base_delay": "500ms",
        }
    )
    user, others = two_users(bridge)
    others_go_on(bridge, "before")
    empty = disks.free(small_disk)
    finish(bridge, "too large", NOISE.format("jsonb_agg(jsonb_build_object('a', md5(n::text)))"))
    wait.until(lambda: bridge.upload("too large")["attempt_count"] > 0, "it is begun")
    others_go_on(bridge, "beside")
    message = bridge.failed("too large")["snowflake_error_message"]
    assert "spool" in message and "No space left" in message, message
    upload = bridge.upload("too large")
    assert (upload["attempt_count"], upload["crash_count"]) == (3, 0)
    assert "Free space" in upload["error_hint"]
    # What could not be written leaves nothing, nor does what a caller could not write.
    wait.until(lambda: disks.free(small_disk) >= empty - 8192, "the disk is free again")
    with pytest.raises(psycopg.errors.DiskFull, match="No space left") as caught:
        bridge.call("upload_query", query=NOISE.format("md5(n::text) as a"), table_name="t")
    assert "Free space" in (caught.value.diag.message_hint or "")
    # A thread that was writing holds its file open for a moment more.
    wait.until(lambda: disks.free(small_disk) >= empty - 8192, "the disk is free again")
    others_go_on(bridge, "after")
    assert sorted(bridge.results(others, ["EXECUTION_ID"])) == [("after",), ("before",), ("beside",)]
    disks.resize(small_disk, "64m")
    bridge.call("retry_upload", id=upload["id"])
    bridge.call("wait_for_upload", id=upload["id"], timeout="60s")
    assert bridge.completed("too large")["snowflake_row_count"] == bridge.row_count(user) == 100_000


def test_a_giant_result(bridge: Bridge) -> None:
    user, _ = two_users(bridge)
    finish(
        bridge,
        "giant",
        f"select jsonb_agg(jsonb_build_object('n', n, 'v', repeat(md5(n::text), 32768))) from generate_series(1, {GIANT_MB}) n",
    )
    others_go_on(bridge, "small")
    bridge.completed("giant", seconds=60 + GIANT_MB)
    found = bridge.results(user, "count(*), sum(N), min(length(V)), count(distinct V)", RESULTS, "where EXECUTION_ID = 'giant'")
    assert found == [(GIANT_MB, GIANT_MB * (GIANT_MB + 1) // 2, 32768 * 32, GIANT_MB)]


def test_ten_thousand_levels(bridge: Bridge) -> None:
    user, _ = two_users(bridge)
    deep = "repeat('[', 10000) || repeat(']', 10000)"
    bridge.admin.execute(f"alter role {APPLICATION} set max_stack_depth = '6MB'")
    bridge.connect()
    finish(bridge, "deep", f"select (('[{{\"n\": 1, \"deep\": ' || {deep} || '}}]')::jsonb)")
    others_go_on(bridge, "flat")
    # Not by the row: whoever reads that in Python must parse the result.
    states = ("completed", "failed")
    state = wait.until(lambda: (found := bridge.upload("deep")["state"]) in states and found, "the deep one has ended")
    assert state == "completed", bridge.upload("deep")["error_message"]
    found = bridge.results(user, "count(*), sum(N), sum(length(DEEP::varchar))", RESULTS, "where EXECUTION_ID = 'deep'")
    assert found == [(1, 1, 20_000)]


def test_the_largest_text_that_there_is(bridge: Bridge) -> None:
    """As long as a VARCHAR may be, to the byte."""
    user, _ = two_users(bridge)
    number = bridge.call("upload_query", query=f"select repeat('x', {LARGEST}) as v", table_name="t")
    assert bridge.call("wait_for_upload", id=number, timeout="120s") == "completed"
    [(length, digest)] = bridge.results(user, "length(V), md5(V)", "T")
    assert (length, digest) == (LARGEST, hashlib.md5(b"x" * LARGEST, usedforsecurity=False).hexdigest())


def test_a_value_beyond_all_limits(bridge: Bridge) -> None:
    """As text in a column of type json, with a value larger than Snowflake takes."""
    user, _ = two_users(bridge)
    bridge.call("unwatch", relation=TABLE)
    bridge.app.execute(f"alter table {TABLE} alter result_rows type json using result_rows::json")
    bridge.call("watch", relation=TABLE)
    finish(bridge, "giant", f"""select ('[{{"v": "' || repeat('x', {max(TOO_LARGE_MB, GIANT_MB)} << 20) || '"}}]')::json""")
    others_go_on(bridge, "small")
    message = bridge.failed("giant", seconds=60 + GIANT_MB)["snowflake_error_message"]
    assert "row 1" in message, message
    upload = bridge.upload("giant")
    assert (upload["attempt_count"], upload["crash_count"]) == (1, 0), "to try again would not help"
    others_go_on(bridge, "after")


def test_a_cancel_while_one_large_value_is_compressed(bridge: Bridge, user: User) -> None:
    """That is one call, which takes most of the time; the answer to a cancel is due within 200 ms, on a machine that has nothing
    else to do."""
    bridge.app.execute("create table noise (v text); alter table noise alter v set storage external")
    bridge.app.execute("insert into noise select string_agg(md5(n::text), '') from generate_series(1, 2000000) n")

    def upload() -> float:
        """How many seconds it runs."""
        began = time.monotonic()
        with contextlib.suppress(psycopg.errors.QueryCanceled), bridge.app.transaction(force_rollback=True):
            bridge.call("upload_query", query="select v from noise", table_name="t")
        return time.monotonic() - began

    def is_prompt() -> bool:
        bridge.app.execute("reset statement_timeout")
        whole = upload()
        late = []
        for part in (0.4, 0.5, 0.6, 0.7):
            bridge.app.execute(f"set statement_timeout = {round(whole * part * 1000)}")
            late.append(upload() - whole * part)
        print(f"{[round(seconds * 1000) for seconds in late]} ms late, of {round(whole * 1000)} ms")
        return sorted(late)[1] < whole / 4

    # Whoever compresses to the end is late by half the time, each time; a busy machine may be so now and then, also for a while.
    assert any(is_prompt() for _ in range(3))
    assert not [path for path in (bridge.cluster.data / "snowflake_bridge_spool").glob("*/*") if path.is_dir()]
