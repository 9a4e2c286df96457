"""Copies of a database: what came with them is sent by one of the two, and by the copy only if somebody said so."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from harness import copies, lifecycle, wait
from harness.bridge import DATABASE, RESULTS, TABLE, Bridge
from harness.cluster import Cluster

UNFINISHED = "select execution_id, state from snowflake_bridge.uploads order by id"
FINISH = f"update {TABLE} set status = 'completed', result_rows = '[{{\"n\": 1}}]' where execution_id = %s"
START = f"insert into {TABLE} (execution_id, status, snowflake_enabled) values (%s, 'running', true)"


@pytest.fixture
def original(make_bridge: Callable[..., Bridge]) -> Bridge:
    """A server on which one upload has completed, one is being loaded, and one waits for it."""
    bridge = make_bridge({"snowflake_bridge.max_concurrent_uploads": "1"})
    bridge.ready()
    bridge.run("done", lifecycle.ROWS)
    bridge.completed("done")
    lifecycle.in_flight(bridge, "loading")
    bridge.run("waiting", lifecycle.ROWS)
    return bridge


def sends(connection: psycopg.Connection[dict[str, Any]], execution_id: str) -> dict[str, Any]:
    """Runs one execution in a database and waits until its upload has ended."""
    connection.execute(START, [execution_id])
    connection.execute(FINISH, [execution_id])
    sql = f"select * from {TABLE} where execution_id = %s and snowflake_status in ('completed', 'failed')"
    return wait.until(lambda: connection.execute(sql, [execution_id]).fetchone(), f"{execution_id} settles")


def is_parked(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """The worker of a copy runs, sends nothing, and everybody who asks is told why."""
    before = at_rest(connection)
    # Of what was just restored, one worker may make room for another.
    hint = wait.until(lambda: row["hint"] if (row := lifecycle.status(connection))["running"] else None, "the copy has a worker")
    assert "copy of another one" in hint and "adopt()" in hint, hint
    found = lifecycle.finding(connection, "installation")
    assert not found["ok"] and "adopt(take_over => true)" in found["hint"]
    assert at_rest(connection) == before


def at_rest(connection: psycopg.Connection[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the uploads stand. A worker puts back what was in flight when the copy was made, sooner or later."""
    rows = connection.execute(UNFINISHED).fetchall()
    return [row | {"state": "retry" if row["state"] in ("claimed", "staged", "copying") else row["state"]} for row in rows]


def loaded(bridge: Bridge) -> dict[str, int]:
    """How many rows of each execution Snowflake has."""
    rows = bridge.account.sql(f'select EXECUTION_ID, count(*) from "ANALYTICS_DB"."REPORTS"."{RESULTS}" group by 1')
    return {execution_id: int(count) for execution_id, count in rows}


@pytest.fixture
def template(original: Bridge) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The database copied as a template, with the original at work again."""
    original.app.close()
    original.admin.close()
    with original.cluster.connect() as server:
        server.execute(f"create database copy template {DATABASE}")
    original.connect()
    with original.cluster.connect("copy") as copy:
        wait.until(lambda: "the worker waits: this database is a copy" in original.cluster.log_text(), "the copy is told")
        yield copy


def test_a_copy_sends_nothing(original: Bridge, template: psycopg.Connection[dict[str, Any]]) -> None:
    is_parked(template)
    original.standin.clear_faults()
    original.completed("loading")
    original.completed("waiting")
    # The original's worker has been through its queue; the copy's has had the time to do the same.
    template.execute(START, ["early"])
    template.execute(FINISH, ["early"])
    is_parked(template)
    assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10}


def test_a_copy_that_is_adopted_is_on_its_own(
    original: Bridge, template: psycopg.Connection[dict[str, Any]]
) -> None:
    identity = "select id, (select array_agg(distinct installation_id) from snowflake_bridge.watches) as watches from snowflake_bridge.installation"
    assert template.execute("select snowflake_bridge.adopt() as n").fetchone()["n"] == 2
    mine = template.execute(identity).fetchone()
    theirs = original.admin.execute(identity).fetchone()
    assert mine["id"] != theirs["id"] and mine["watches"] == [mine["id"]]
    mark = original.standin.audit_mark()
    assert sends(template, "of the copy")["snowflake_status"] == "completed"
    assert lifecycle.finding(template, "installation")["ok"] and lifecycle.status(template)["hint"] is None
    states = {row["execution_id"]: row["state"] for row in template.execute(UNFINISHED)}
    assert states == {"done": "completed", "loading": "canceled", "waiting": "canceled", "of the copy": "completed"}
    mirrored = template.execute(f"select * from {TABLE} where execution_id = 'waiting'").fetchone()
    assert mirrored["snowflake_status"] == "failed" and "copied" in mirrored["snowflake_error_message"]
    # What the copy has put into the stage lies under its own name.
    [sent] = template.execute("select upload_id from snowflake_bridge.uploads where execution_id = 'of the copy'")
    [put] = [put for put in original.account.statements("PUT ", mark) if str(sent["upload_id"]) in put]
    assert str(mine["id"]) in put
    original.standin.clear_faults()
    original.completed("loading")
    original.completed("waiting")
    assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10, "of the copy": 1}


def loaded_by(bridge: Bridge, connection: psycopg.Connection[dict[str, Any]]) -> dict[str, int]:
    """How many rows of each execution Snowflake has under the upload ids of one of the databases."""
    rows = bridge.account.sql(f'select UPLOAD_ID, count(*) from "ANALYTICS_DB"."REPORTS"."{RESULTS}" group by 1')
    counts = {upload_id: int(count) for upload_id, count in rows}
    found: dict[str, int] = {}
    for row in connection.execute("select upload_id::text as id, execution_id from snowflake_bridge.uploads order by id"):
        if row["id"] in counts:
            found[row["execution_id"]] = found.get(row["execution_id"], 0) + counts[row["id"]]
    return found


def has_loaded(connection: psycopg.Connection[dict[str, Any]], execution_id: str) -> None:
    """Waits until the latest upload of an execution has completed there."""
    sql = "select state from snowflake_bridge.uploads where execution_id = %s order by id desc limit 1"
    wait.until(lambda: connection.execute(sql, [execution_id]).fetchone() == {"state": "completed"}, f"{execution_id} is loaded")


def test_a_copy_that_is_adopted_replaces_none_of_the_rows_of_the_original(
    original: Bridge, template: psycopg.Connection[dict[str, Any]]
) -> None:
    template.execute("select snowflake_bridge.adopt()")
    # One that both know, and that the original has loaded, gets another result here.
    template.execute(FINISH, ["done"])
    has_loaded(template, "done")
    assert loaded(original)["done"] == 10 + 1
    # Those that the original sends are sent from here too: somebody insists.
    for execution in ("loading", "waiting"):
        template.execute(
            "select snowflake_bridge.retry_upload(id) from snowflake_bridge.uploads where execution_id = %s", [execution]
        )
        has_loaded(template, execution)
    original.standin.clear_faults()
    original.completed("loading")
    original.completed("waiting")
    assert loaded(original) == {"done": 10 + 1, "loading": 20, "waiting": 20}
    # What the copy has loaded itself it replaces.
    template.execute(FINISH, ["waiting"])
    has_loaded(template, "waiting")
    assert loaded(original) == {"done": 10 + 1, "loading": 20, "waiting": 10 + 1}
    theirs = loaded_by(original, original.admin)
    assert theirs == {"done": 10, "loading": 10, "waiting": 10}


def test_a_copy_that_takes_over(original: Bridge, template: psycopg.Connection[dict[str, Any]]) -> None:
    original.app.close()
    original.admin.close()
    with original.cluster.connect() as server:
        server.execute(f"drop database {DATABASE}")
    original.standin.clear_faults()
    assert template.execute("select snowflake_bridge.adopt(take_over => true) as n").fetchone()["n"] == 2
    done = "select from snowflake_bridge.uploads where state <> 'completed'"
    wait.until(lambda: not template.execute(done).fetchall(), "every upload is loaded")
    assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10}


def test_adopting_is_for_superusers(bridge: Bridge) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        bridge.app.execute("select snowflake_bridge.adopt()")


def test_an_installation_that_is_adopted_without_need_starts_anew(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    before = bridge.worker()
    bridge.admin.execute("select snowflake_bridge.adopt()")
    lifecycle.worker(bridge.cluster, DATABASE, other_than=before)
    bridge.standin.clear_faults()
    assert "copied" in bridge.failed("run-1")["snowflake_error_message"]
    bridge.run("run-2", lifecycle.ROWS)
    bridge.completed("run-2")


@pytest.mark.parametrize("options", [[], ["--jobs=4"], ["--single-transaction"]], ids=["serial", "parallel", "single transaction"])
def test_a_dump_that_is_restored_sends_nothing(original: Bridge, options: list[str]) -> None:
    with copies.restored(original.cluster, DATABASE, "restored", options) as restored:
        is_parked(restored)
        original.standin.clear_faults()
        original.completed("loading")
        original.completed("waiting")
        is_parked(restored)
        assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10}
        assert restored.execute("select snowflake_bridge.adopt() as n").fetchone()["n"] == 2
        assert sends(restored, "of the copy")["snowflake_status"] == "completed"
        assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10, "of the copy": 1}


def test_a_dump_that_takes_the_place_of_what_was_lost(original: Bridge) -> None:
    with copies.restored(original.cluster, DATABASE, "restored") as restored:
        original.app.close()
        original.admin.close()
        with original.cluster.connect() as server:
            server.execute(f"drop database {DATABASE}")
        original.standin.clear_faults()
        assert restored.execute("select snowflake_bridge.adopt(take_over => true) as n").fetchone()["n"] == 2
        done = "select from snowflake_bridge.uploads where state <> 'completed'"
        wait.until(lambda: not restored.execute(done).fetchall(), "every upload is loaded")
        assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10}


@pytest.fixture
def held_back(bridge: Bridge, user: User) -> Bridge:
    """A server without a worker on which an execution has finished. Another one has been loaded."""
    bridge.run("done", lifecycle.ROWS)
    bridge.completed("done")
    serve(bridge, "postgres")
    wait.until(lambda: not lifecycle.workers(bridge.cluster, DATABASE), "the worker has ended")
    bridge.run("run-1", lifecycle.ROWS)
    bridge.run("run-2", lifecycle.ROWS)
    return bridge


def serve(bridge: Bridge, databases: str) -> None:
    """Says which databases have workers."""
    bridge.admin.execute(f"alter system set snowflake_bridge.databases = '{databases}'")
    bridge.admin.execute("select pg_reload_conf()")


def test_a_dump_that_is_older_than_what_was_loaded(held_back: Bridge) -> None:
    with copies.restored(held_back.cluster, DATABASE, "restored") as restored:
        serve(held_back, f"{DATABASE}, restored")
        held_back.completed("run-1")
        held_back.completed("run-2")
        held_back.app.close()
        held_back.admin.close()
        with held_back.cluster.connect() as server:
            server.execute(f"drop database {DATABASE}")
        assert restored.execute("select snowflake_bridge.adopt(take_over => true) as n").fetchone()["n"] == 2
        is_loaded_once_again(held_back, restored)


def is_loaded_once_again(bridge: Bridge, database: psycopg.Connection[dict[str, Any]]) -> None:
    """What the records have forgotten is loaded again, and replaces what there was; what comes later is as always."""
    done = "select from snowflake_bridge.uploads where state <> 'completed'"
    wait.until(lambda: not database.execute(done).fetchall(), "every upload is loaded", 60)
    mark = bridge.standin.audit_mark()
    assert sends(database, "afterwards")["snowflake_status"] == "completed"
    assert loaded(bridge) == {"done": 10, "run-1": 10, "run-2": 10, "afterwards": 1}
    assert not bridge.account.statements("DELETE", mark)


@pytest.fixture
def lagging(held_back: Bridge) -> Iterator[Cluster]:
    """A standby, not running, that has not heard of what its primary has loaded before it was lost."""
    with copies.base_backup(held_back.cluster, standby=True) as standby:
        standby.start()
        with standby.connect(DATABASE) as reader:
            wait.until(lambda: len(reader.execute(UNFINISHED).fetchall()) == 3, "the standby has received everything")
        standby.stop()
        serve(held_back, DATABASE)
        held_back.completed("run-1")
        held_back.completed("run-2")
        held_back.cluster.stop(signal.SIGQUIT)
        # Nothing of what the primary has done since is here.
        (standby.data / "postgresql.auto.conf").write_text("")
        yield standby


def test_a_standby_that_lags_behind_when_it_is_promoted(held_back: Bridge, lagging: Cluster) -> None:
    lagging.start()
    lagging.promote()
    with lagging.connect(DATABASE) as primary:
        is_loaded_once_again(held_back, primary)


def test_what_is_canceled_there_says_that_its_rows_may_be_in_snowflake(held_back: Bridge, lagging: Cluster) -> None:
    lagging.settings["snowflake_bridge.max_concurrent_uploads"] = "1"
    mark = lifecycle.hold(held_back)
    lagging.start()
    lagging.promote()
    held_back.uploading(lifecycle.COPY, mark)
    with lagging.connect(DATABASE) as primary:
        cancel = "select snowflake_bridge.cancel_upload(id) as answer from snowflake_bridge.uploads where execution_id like 'run-%'"
        assert [row["answer"] for row in primary.execute(cancel).fetchall()] == [True, True]
        canceled = "select * from snowflake_bridge.uploads where state = 'canceled' order by attempt_count"
        waiting, under_way = wait.until(lambda: (found := primary.execute(canceled).fetchall())[1:] and found, "both are canceled")
        assert waiting["error_message"] == "canceled on request; its rows may be in Snowflake"
        assert under_way["error_message"].startswith("canceled on request; its rows may be in table ")
        assert all("UPLOAD_ID" in upload["error_hint"] for upload in (waiting, under_way))
        assert loaded(held_back) == {"done": 10, "run-1": 10, "run-2": 10}
        held_back.standin.clear_faults()
        for upload in (waiting, under_way):
            primary.execute("select snowflake_bridge.retry_upload(%s)", [upload["id"]])
        is_loaded_once_again(held_back, primary)


def test_a_dump_that_is_restored_into_another_server(original: Bridge, make_bridge: Callable[..., Bridge]) -> None:
    # Roles have other OIDs there; secrets are bound to them and have to be given again.
    allowed = original.cluster.settings["snowflake_bridge.allowed_hosts"]
    with copies.server(original.cluster, {"snowflake_bridge.allowed_hosts": allowed}) as other:
        with other.connect() as server:
            server.execute("create role takes_the_next_oid")
            server.execute("create role app login")
        with copies.restored(original.cluster, DATABASE, DATABASE, into=other) as restored:
            is_parked(restored)
            assert restored.execute("select snowflake_bridge.adopt() as n").fetchone()["n"] == 2
            message = sends(restored, "refused")["snowflake_error_message"]
            assert "Store the secret again" in message, message
            user = original.account.add_user()
            with other.connect(DATABASE, "app") as app:
                app.execute("select snowflake_bridge.update_config('default', password => %s)", [user.password])
            assert sends(restored, "of the copy")["snowflake_status"] == "completed"


def test_a_base_backup_without_the_key_sends_nothing(original: Bridge) -> None:
    with copies.base_backup(original.cluster) as clone:
        clone.settings["snowflake_bridge.key_file"] = str(clone.keys / "keyring")
        clone.start()
        with clone.connect(DATABASE) as copy:
            before = copy.execute(UNFINISHED).fetchall()
            wait.until(lambda: "the worker waits: key file" in clone.log_text(), "the log says what is missing")
            wait.until(lambda: "secrets cannot be decrypted" in (lifecycle.status(copy)["hint"] or ""), "so does the worker's status")
            key = lifecycle.finding(copy, "key_file")
            assert not key["ok"] and "is missing" in key["detail"]
            # Whoever means it to be a database of its own says so before it gets a key.
            assert copy.execute(UNFINISHED).fetchall() == before
            assert copy.execute("select snowflake_bridge.adopt() as n").fetchone()["n"] == 2
            subprocess.run(["cp", "--archive", str(original.cluster.keys / "keyring"), str(clone.keys)], check=True)
            assert sends(copy, "of the copy")["snowflake_status"] == "completed"
        original.standin.clear_faults()
        original.completed("loading")
        original.completed("waiting")
        assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10, "of the copy": 1}


def test_a_server_that_was_upgraded(original: Bridge) -> None:
    original.app.close()
    original.admin.close()
    original.cluster.stop()
    with copies.upgraded(original.cluster) as upgraded:
        assert "snowflake_bridge: " not in server_logs(upgraded), "no worker runs during the upgrade"
        original.standin.clear_faults()
        upgraded.start()
        with upgraded.connect(DATABASE) as database:
            # The old server could be started again beside it, so somebody says which of the two it is now.
            is_parked(database)
            assert loaded(original) == {"done": 10}
            assert database.execute("select snowflake_bridge.adopt(take_over => true) as n").fetchone()["n"] == 2
            done = "select from snowflake_bridge.uploads where state <> 'completed'"
            wait.until(lambda: not database.execute(done).fetchall(), "every upload is loaded")
            assert sends(database, "afterwards")["snowflake_status"] == "completed"
            with upgraded.connect(DATABASE, "app") as app:
                assert app.execute("select success from snowflake_bridge.test_connection()").fetchone()["success"]
        assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10, "afterwards": 1}


def server_logs(cluster: Cluster) -> str:
    """What both servers have logged while `pg_upgrade` ran them."""
    logs = list(cluster.data.glob("pg_upgrade_output.d/**/pg_upgrade_server.log"))
    assert logs, "pg_upgrade has kept its logs"
    return "".join(log.read_text() for log in logs)


def test_a_standby_has_no_worker_until_it_is_promoted(original: Bridge) -> None:
    with copies.base_backup(original.cluster, standby=True) as standby:
        standby.start()
        with standby.connect(DATABASE) as reader:
            wait.until(
                lambda: len(reader.execute(UNFINISHED).fetchall()) == 3, "the standby has received everything"
            )
            assert not standby.backends("snowflake_bridge launcher") and not lifecycle.workers(standby, DATABASE)
            assert "standby" in lifecycle.finding(reader, "worker")["detail"]
            # Whatever only reads, and the network, can be had here too.
            assert not lifecycle.status(reader)["running"]
            assert len(reader.execute("select * from snowflake_bridge.upload_progress()").fetchall()) == 2
            with standby.connect(DATABASE, "app") as app:
                assert app.execute("select name from snowflake_bridge.get_config()").fetchone() == {"name": "default"}
                test = app.execute("select * from snowflake_bridge.test_connection()").fetchone()
                assert test["success"], test
            for call in (
                "snowflake_bridge.upload('done')",
                "snowflake_bridge.upload_query('select 1 as a', 't')",
                "snowflake_bridge.cancel_upload(1)",
                "snowflake_bridge.retry_upload(1)",
                "snowflake_bridge.delete_config()",
                "snowflake_bridge.adopt()",
            ):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
                    reader.execute(f"select {call}")
                assert refused.value.diag.message_hint == "Call it on the primary."
        # The primary is lost, with an upload in flight; nobody has to call anything.
        original.cluster.stop(signal.SIGQUIT)
        original.standin.clear_faults()
        standby.promote()
        lifecycle.worker(standby, DATABASE)
        with standby.connect(DATABASE) as primary:
            done = "select from snowflake_bridge.uploads where state <> 'completed'"
            wait.until(lambda: not primary.execute(done).fetchall(), "every upload is loaded", 60)
            assert sends(primary, "afterwards")["snowflake_status"] == "completed"
            assert len(lifecycle.workers(standby, DATABASE)) == 1
        assert loaded(original) == {"done": 10, "loading": 10, "waiting": 10, "afterwards": 1}
