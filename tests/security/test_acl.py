"""Every object × role: privileges, guards, rows and attempts are what the table of expectations says, and it notices any other."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from harness import wait
from harness.bridge import DATABASE, TABLE, Bridge
from harness.cluster import Cluster
from security.acl import Matrix

# Each is a way to leave a door open, and the statement that closes it again.
DOORS = {
    "grant select on snowflake_bridge.installation to stranger": "revoke select on snowflake_bridge.installation from stranger",
    "grant select (password_encrypted) on snowflake_bridge.snowflake_configurations to service_role": "revoke select (password_encrypted) on snowflake_bridge.snowflake_configurations from service_role",
    "grant update (account_identifier) on snowflake_bridge.snowflake_configurations to alice": "revoke update (account_identifier) on snowflake_bridge.snowflake_configurations from alice",
    "grant truncate on snowflake_bridge.uploads to anon": "revoke truncate on snowflake_bridge.uploads from anon",
    "grant usage on sequence snowflake_bridge.uploads_id_seq to bob": "revoke usage on sequence snowflake_bridge.uploads_id_seq from bob",
    "grant create on schema snowflake_bridge to alice": "revoke create on schema snowflake_bridge from alice",
    "grant execute on function snowflake_bridge.check() to public": "revoke execute on function snowflake_bridge.check() from public",
    "grant alice to stranger": "revoke alice from stranger",
    "alter table snowflake_bridge.snowflake_configurations disable row level security": "alter table snowflake_bridge.snowflake_configurations enable row level security",
    "alter table snowflake_bridge.uploads no force row level security": "alter table snowflake_bridge.uploads force row level security",
    "create policy open on snowflake_bridge.uploads for select using (true)": "drop policy open on snowflake_bridge.uploads",
    "alter policy own_rows on snowflake_bridge.uploads using (user_id = (select c.user_id from snowflake_bridge.caller() c))": "alter policy own_rows on snowflake_bridge.uploads using ((owner_kind, user_id, owner_oid) = (select c.owner_kind, c.user_id, coalesce(c.owner_oid, 0) from snowflake_bridge.caller() c))",
    "alter function snowflake_bridge.get_config(text, text) security definer": "alter function snowflake_bridge.get_config(text, text) security invoker",
    "create view snowflake_bridge.all_uploads as select * from snowflake_bridge.uploads; grant select on snowflake_bridge.all_uploads to alice": "drop view snowflake_bridge.all_uploads",
    "alter system set snowflake_bridge.claims_trusted_roles = 'authenticator, pretender'; select pg_reload_conf()": "alter system reset snowflake_bridge.claims_trusted_roles; select pg_reload_conf()",
}  # fmt: skip


@pytest.fixture
def matrix() -> Matrix:
    """A server whose library is loaded by whoever needs it, so that no worker touches the rows."""
    with contextlib.closing(Cluster({"session_preload_libraries": "snowflake_bridge"})) as cluster:
        cluster.start()
        yield Matrix(cluster, "postgres")


def test_every_object_and_role(matrix: Matrix, capfd: pytest.CaptureFixture[str]) -> None:
    cells, unexpected = matrix.judge()
    assert not unexpected, "\n".join(unexpected[:40])
    assert cells > 5_000
    noticed = {}
    for opened, closed in DOORS.items():
        matrix.change(opened)
        noticed[opened] = matrix.first_unexpected()
        matrix.change(closed)
    overlooked = [door for door, cell in noticed.items() if cell is None]
    assert not overlooked, f"left open, and not noticed: {overlooked}"
    assert matrix.judge() == (cells, [])
    with capfd.disabled():
        print(f"\nsecurity: suite=acl cells={cells} unexpected=0 doors_left_open={len(noticed)} noticed={len(noticed) - len(overlooked)}")


def test_who_may_read_a_row_may_have_it_sent_and_who_lacks_a_column_of_ours_may_not(bridge: Bridge) -> None:
    """As docs/security.md says."""
    bridge.ready()
    bridge.start_execution("run-1")
    bridge.admin.execute("create role analyst login; select snowflake_bridge.grant_usage('analyst')")
    analyst = bridge.cluster.connect(DATABASE, "analyst")

    def upload() -> None:
        bridge.call("upload", connection=analyst, execution_id="run-1", relation=TABLE)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        upload()
    bridge.app.execute(f"grant select (execution_id, user_id, status, result_rows) on {TABLE} to analyst")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        upload()
    bridge.app.execute(f"grant select on {TABLE} to analyst")
    upload()
    assert bridge.upload("run-1")["user_id"] == "app"
    wait.until(lambda: bridge.upload("run-1")["state"] == "completed", "it is sent, though its execution has not finished")
