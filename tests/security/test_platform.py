"""A database with a gateway in front, as Supabase has it: each user has what is theirs, and nobody gets at anybody else's."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest

from harness import wait
from harness.bridge import Bridge
from harness.installation import with_package
from harness.standin import WAREHOUSE
from security.gateway import ANN, BEN, POLICIES, REFUSALS, TABLE, Attacks, configured, prepared, run_report, status
from security.platform import Platform, refusal
from security.test_escalation import UNGUARDED

NO_SCHEMA = "42501: permission denied for schema snowflake_bridge"
RESTRICTED = "42501: snowflake_bridge cannot be used within a security-restricted operation"


@pytest.fixture
def platform(bridge: Bridge) -> Platform:
    return prepared(bridge)


def test_nobody_behind_a_gateway_is_somebody_else(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = Attacks(make_bridge()).run()
    assert outcomes == REFUSALS
    assert UNGUARDED.is_dir(), f"{UNGUARDED} is missing: make package-mutant_unguarded"
    with with_package(UNGUARDED):
        unguarded = Attacks(make_bridge()).run()
    assert set(unguarded.values()) == {"succeeded"}, f"harmless even without the guard: {unguarded}"
    with capfd.disabled():
        print(f"\nsecurity: suite=platform attacks={len(outcomes)} succeeded=0 succeeded_without_guard={len(unguarded)}")


def test_users_manage_and_see_their_own(platform: Platform) -> None:
    users = configured(platform)
    for subject, user in users.items():
        [config] = platform.rpc("authenticated", subject, "get_config")
        assert config["username"] == user.name
        assert user.password not in json.dumps(config)
        assert platform.rpc("authenticated", subject, "test_connection", name="default")[0]["success"] is True
    platform.rpc("authenticated", ANN, "update_config", warehouse="OTHER_WH", verify=False)
    assert platform.rpc("authenticated", ANN, "get_config")[0]["warehouse"] == "OTHER_WH"
    assert platform.rpc("authenticated", BEN, "get_config")[0]["warehouse"] == WAREHOUSE
    platform.rpc("authenticated", ANN, "update_config", warehouse=WAREHOUSE)

    platform.admin.execute("select snowflake_bridge.watch(%s, create_if_missing => true, act_for_users => true)", [TABLE])
    platform.admin.execute(POLICIES.format(table=TABLE))
    run_report(platform, ANN, "of ann")
    run_report(platform, BEN, "of ben")
    own_policy = '42501: new row violates row-level security policy for table "workflow_executions"'
    assert refusal(run_report, platform, ANN, "forged", user_id=BEN) == own_policy
    for execution in ("of ann", "of ben"):
        assert status(platform, execution) == "completed"
    for subject, user in users.items():
        assert platform.bridge.row_count(user) == 1
        with platform.as_user("authenticated", json.dumps({"sub": subject})) as connection:
            rows = connection.execute("select execution_id, user_id from snowflake_bridge.uploads").fetchall()
        assert rows == [{"execution_id": "of ann" if subject == ANN else "of ben", "user_id": subject}]
    [upload] = platform.admin.execute("select id from snowflake_bridge.uploads where user_id = %s", [BEN]).fetchall()
    for function in ("cancel_upload", "retry_upload", "wait_for_upload"):
        # What is another's cannot be told from what does not exist.
        for number in (upload["id"], 10**9):
            assert refusal(platform.rpc, "authenticated", ANN, function, id=number) == f"42704: upload {number} does not exist"
    platform.rpc("authenticated", ANN, "delete_config")
    assert platform.rpc("authenticated", ANN, "get_config") == []
    assert len(platform.rpc("authenticated", BEN, "get_config")) == 1


def test_visitors_see_nothing(platform: Platform) -> None:
    configured(platform)
    for subject in (None, ANN):
        for function in ("get_config", "test_connection", "worker_status", "check", "caller", "upload_progress", "list_tables"):
            assert refusal(platform.rpc, "anon", subject, function) == NO_SCHEMA, function
        with platform.as_user("anon", json.dumps({"sub": subject})) as connection:
            for relation in ("snowflake_configurations", "uploads", "upload_stats", "watches"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema snowflake_bridge"), connection.transaction():
                    connection.execute(f"select * from snowflake_bridge.{relation}")


def test_a_backend_acts_for_the_users_it_names(platform: Platform) -> None:
    users = configured(platform)
    assert platform.rpc("service_role", None, "get_config") == []
    assert platform.rpc("service_role", None, "get_config", user_id=ANN)[0]["username"] == users[ANN].name
    assert platform.rpc("service_role", None, "test_connection", name="default", user_id=BEN)[0]["success"] is True
    platform.rpc("service_role", None, "delete_config", user_id=ANN)
    assert platform.rpc("authenticated", ANN, "get_config") == []
    # A user names nobody but herself.
    for function in ("get_config", "delete_config"):
        assert refusal(platform.rpc, "authenticated", ANN, function, user_id=BEN) == f'42501: permission denied to act for user "{BEN}"'
    assert platform.rpc("authenticated", BEN, "get_config", user_id=BEN)[0]["username"] == users[BEN].name


def test_forged_claims_change_nothing(platform: Platform) -> None:
    """Whoever does not come through the gateway may say what they like, also as a role of the gateway's users."""
    configured(platform)
    platform.admin.execute("create role pretender login; grant authenticated, service_role to pretender")
    platform.admin.execute("create role ann login")
    forged = json.dumps({"sub": ANN, "role": "service_role"})
    who = "select owner_kind, user_id from snowflake_bridge.caller()"
    for login, role in (("pretender", "authenticated"), ("developer", "authenticated")):
        with (
            platform.bridge.cluster.connect("platform", login) as connection,
            platform.as_user(role, forged, connection) as session,
        ):
            assert session.execute(who).fetchall() == [{"owner_kind": "role", "user_id": role}]
            assert session.execute("select name from snowflake_bridge.get_config()").fetchall() == []
            assert session.execute("select name from snowflake_bridge.snowflake_configurations").fetchall() == []
            for setting in ("claims_trusted_roles", "act_for_users_roles"):
                with pytest.raises(psycopg.errors.CantChangeRuntimeParam), session.transaction():
                    session.execute(f"set snowflake_bridge.{setting} = '{login}, {role}'")
    # Through the gateway, what is no subject makes nobody a user.
    for claims in ('{"sub": ""}', '{"sub": null}', '{"sub": 5}', '{"sub": ["6f0c-ann"]}', '{"user_id": "6f0c-ann"}', "[]", '"6f0c-ann"'):
        with platform.as_user("authenticated", claims) as session:
            assert session.execute(who).fetchall() == [{"owner_kind": "role", "user_id": "authenticated"}], claims
            assert session.execute("select name from snowflake_bridge.snowflake_configurations").fetchall() == []


MALLORY = """
    create schema of_mallory authorization mallory;
    set role mallory;
    create function of_mallory.grab(anything text) returns text language plpgsql immutable as $$
    begin
        perform snowflake_bridge.delete_config(user_id => 'alice');
        return 'deleted';
    end $$;
    create function of_mallory.whoami() returns text language sql security definer as
        $$ select c.user_id || coalesce(':' || (select string_agg(g.username, ',') from snowflake_bridge.get_config() g), '') from snowflake_bridge.caller() c $$;
    grant usage on schema of_mallory to public;
    create view of_mallory.configurations as select name, username from snowflake_bridge.snowflake_configurations;
    grant select on of_mallory.configurations to public;
    create table of_mallory.traps (id text);
    insert into of_mallory.traps values ('a');
    reset role;
"""


def test_nobody_reaches_anothers_configuration(platform: Platform) -> None:
    """By a watch of one's own, a forged trigger, an index expression, a view, a materialised view or a definer function."""
    bridge, admin = platform.bridge, platform.admin
    victim = bridge.account.add_user("VICTIM")
    admin.execute("create role alice login; create role mallory login; grant create on database platform to alice")
    admin.execute("select snowflake_bridge.grant_usage('alice'), snowflake_bridge.grant_usage('mallory')")
    alice, mallory = (bridge.cluster.connect("platform", name) for name in ("alice", "mallory"))
    alice.execute("create schema of_alice")
    bridge.configure(victim, connection=alice)
    bridge.call("watch", connection=alice, relation="of_alice.runs", create_if_missing=True)
    alice.execute("create function of_alice.rows_of(id text) returns table (n int) language sql as 'select 1'; grant usage on schema of_alice to public")
    admin.execute(MALLORY)
    mark = bridge.standin.audit_mark()

    # Her own watch sends rows as her, whomever they name.
    forbidden = refusal(mallory.execute, "select snowflake_bridge.watch('of_mallory.runs', true, act_for_users => true)")
    assert forbidden == "42501: only superusers may watch with act_for_users"
    bridge.call("watch", connection=mallory, relation="of_mallory.runs", create_if_missing=True)
    mallory.execute(
        "insert into of_mallory.runs (execution_id, user_id, status, snowflake_enabled, result_rows, snowflake_options) "
        "values ('m', 'alice', 'completed', true, '[{\"n\": 1}]', '{\"config\": \"default\"}')"
    )
    sql = "select user_id, error_message from snowflake_bridge.uploads where execution_id = 'm' and state = 'failed'"
    [upload] = wait.until(lambda: admin.execute(sql).fetchall(), "her upload fails")
    assert upload["user_id"] == "mallory"
    assert "configuration" in upload["error_message"], upload
    bridge.configure(bridge.account.add_user("MALLORY"), connection=mallory, verify=False)
    # Nor does she watch, stop, queue or read what is Alice's.
    for call, message in {
        "watch('of_alice.runs')": "must be owner of table of_alice.runs",
        "unwatch('of_alice.runs')": "must be owner of table of_alice.runs",
        "upload('x', 'of_alice.runs')": "permission denied for table runs",
        "backfill(null, 'of_alice.runs')": "must be owner of table of_alice.runs",
        "watch('of_mallory.runs', result_function => 'of_alice.rows_of(text)')": "function of_alice.rows_of(text) "
        'does not belong to role "mallory", which owns the watched relation',
        "watch('of_mallory.runs', result_relation => 'of_alice.runs')": "relation of_alice.runs "
        'does not belong to role "mallory", which owns the watched relation',
        "upload_table('of_alice.runs')": "permission denied for table runs",
    }.items():
        assert refusal(mallory.execute, f"select snowflake_bridge.{call}") == f"42501: {message}", call
    # A trigger of her own that names Alice's watch.
    [watch] = admin.execute("select id from snowflake_bridge.watches where relation = 'of_alice.runs'::regclass").fetchall()
    mallory.execute("create table of_mallory.forged (like of_mallory.runs including defaults)")
    mallory.execute(
        f"create trigger forged after insert on of_mallory.forged for each row execute function snowflake_bridge.enqueue('{watch['id']}')"
    )
    mallory.execute("insert into of_mallory.forged (execution_id, status, snowflake_enabled) values ('f', 'completed', true)")
    assert admin.execute("select from snowflake_bridge.uploads where execution_id = 'f'").rowcount == 0

    # What runs when a superuser looks after her tables: it would run as her, and is told to go away.
    assert refusal(mallory.execute, "create index on of_mallory.traps (of_mallory.grab(id))") == RESTRICTED
    mallory.execute("create or replace function of_mallory.harmless(anything text) returns text language sql immutable as 'select $1'")
    mallory.execute("create index on of_mallory.traps (of_mallory.harmless(id))")
    mallory.execute(
        "create or replace function of_mallory.harmless(anything text) returns text language sql immutable as 'select of_mallory.grab($1)'"
    )
    for care in ("reindex table of_mallory.traps", "vacuum analyze of_mallory.traps", "cluster of_mallory.traps using traps_harmless_idx"):
        assert refusal(admin.execute, care) == RESTRICTED, care
    mallory.execute("create materialized view of_mallory.copied as select of_mallory.grab('x') with no data")
    assert refusal(admin.execute, "refresh materialized view of_mallory.copied") == RESTRICTED

    # A view shows to each what is theirs, whoever made it; a function of hers that Alice calls acts as her.
    assert alice.execute("select username from of_mallory.configurations").fetchall() == [{"username": "VICTIM"}]
    assert mallory.execute("select username from of_mallory.configurations").fetchall() == [{"username": "MALLORY"}]
    alice.execute("create view of_alice.mine as select * from (select name, username from snowflake_bridge.snowflake_configurations) c")
    alice.execute("grant select on of_alice.mine to mallory")
    assert mallory.execute("select username from of_alice.mine").fetchall() == [{"username": "MALLORY"}]
    assert alice.execute("select of_mallory.whoami() as who").fetchall() == [{"who": "mallory:MALLORY"}]

    assert alice.execute("select username from snowflake_bridge.get_config()").fetchall() == [{"username": "VICTIM"}]
    assert not [record for record in bridge.standin.audit(mark) if record["kind"] == "login"], "nobody has logged in"
