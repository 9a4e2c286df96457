"""No secret is found where the documentation says that there is none: logs, files, WAL, dumps, statistics, core files."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness import keys, wait
from harness.bridge import DATABASE, Bridge
from harness.copies import program
from harness.installation import with_package
from security.hunt import Hunt, files, memory


# What a server can be told to log, of statements and otherwise.
LOGGING = {
    "defaults": {},
    "verbose": {"log_error_verbosity": "verbose"},
    "statements of every message": {"log_min_error_statement": "debug5"},
    "all statements": {"log_statement": "all"},
    "all statements, without parameters": {"log_statement": "all", "log_parameter_max_length": "0"},
    "statements that change": {"log_statement": "mod"},
    "durations": {"log_min_duration_statement": "0"},
    "durations alone": {"log_duration": "on"},
    "durations, sampled": {"log_min_duration_sample": "0", "log_statement_sample_rate": "1"},
    "transactions, sampled": {"log_transaction_sample_rate": "1"},
    "parameters of errors": {"log_parameter_max_length_on_error": "-1"},
    "parse trees": {"debug_print_parse": "on", "debug_print_rewritten": "on"},
    "plans": {"debug_print_plan": "on"},
    "plans by auto_explain": {"auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on", "auto_explain.log_verbose": "on"},
    "plans by auto_explain, as warnings": {"auto_explain.log_min_duration": "0", "auto_explain.log_level": "warning", "auto_explain.log_nested_statements": "on"},
    "statistics": {"log_parser_stats": "on", "log_planner_stats": "on", "log_executor_stats": "on"},
    "debugging": {"log_min_messages": "debug5"},
    "connections and locks": {"log_connections": "on", "log_disconnections": "on", "log_lock_waits": "on"},
}  # fmt: skip
ALWAYS_IN_MEMORY = "what the environment holds"
FORMATS = (".log", ".csv", ".json")
# What `make package-mutant_unguarded` has made.
UNGUARDED = Path(os.environ.get("UNGUARDED", "target/package-mutant_unguarded")).resolve()
CREATE = "select snowflake_bridge.create_config({account}, username => {user}, password => {password}, name => {name}, verify => {verify})"
UPDATE = "select snowflake_bridge.update_config({name}, password => {password}, verify => false)"
TEST = "select * from snowflake_bridge.test_connection({settings}::jsonb)"


LIBRARIES = {"shared_preload_libraries": "snowflake_bridge, pg_stat_statements, auto_explain", "track_activity_query_size": "16384"}
# One file for each format: what comes before a mark in a file was written before it.
COLLECTOR = {
    "logging_collector": "on",
    "log_destination": "stderr,csvlog,jsonlog",
    "log_rotation_size": "0",
    "log_rotation_age": "0",
}


@contextlib.contextmanager
def logged(bridge: Bridge, settings: Mapping[str, str]) -> Iterator[None]:
    """Whoever connects meanwhile is logged as these settings say."""
    for name, value in settings.items():
        bridge.admin.execute(f"alter system set {name} = '{value}'")
    reloaded(bridge)
    yield
    bridge.admin.execute("alter system reset all")
    reloaded(bridge)


def reloaded(bridge: Bridge) -> None:
    """Has the server read its settings, and waits until whoever connects has them."""

    def read_at() -> Any:
        with bridge.cluster.connect(DATABASE) as connection:
            return connection.execute("select pg_conf_load_time() as at").fetchall()[0]["at"]

    before = read_at()
    bridge.reload()
    wait.until(lambda: read_at() > before, "the settings are read")


def new_log(directory: Path, seen: dict[Path, int], marker: str, bridge: Bridge) -> list[tuple[str, bytes]]:
    """What was logged since the last look, in each format; waits until the collector has written all of it."""
    bridge.admin.execute(f"do $$ begin raise log 'end of {marker}'; end $$")

    def look() -> list[tuple[str, bytes]] | None:
        new = [(path.suffix, path, after(path, seen.get(path, 0))) for path in directory.iterdir()]
        complete = {suffix for suffix, _, content in new if f"end of {marker}".encode() in content}
        if complete != set(FORMATS):
            return None
        seen.update({path: seen.get(path, 0) + len(content) for _, path, content in new})
        return [(suffix, content) for suffix, _, content in new]

    return wait.until(look, "the log is written")


def after(path: Path, place: int) -> bytes:
    """What a file holds from a place on."""
    with path.open("rb") as file:
        file.seek(place)
        return file.read()


def literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "'" + str(value).replace("'", "''") + "'"


def calls(bridge: Bridge, new_secret: Callable[[], str], *, bound: bool) -> int:
    """Every function that takes secrets, where it succeeds and where it fails. Returns how often it was refused."""
    account, refused = bridge.account.host, 0
    with bridge.cluster.connect(DATABASE, "app") as connection:

        def call(template: str, **values: Any) -> None:
            nonlocal refused
            try:
                if bound:
                    connection.execute(template.format(**{name: f"%({name})s" for name in values}), values)
                else:
                    connection.execute(template.format(**{name: literal(value) for name, value in values.items()}))
            except psycopg.Error:
                refused += 1

        call(CREATE, account=account, user="HUNTED", password=new_secret(), name="hunted", verify=False)
        call(CREATE, account=account, user="NOBODY", password=new_secret(), name="refused", verify=True)
        call(CREATE, account="no/account", user="HUNTED", password=new_secret(), name="malformed", verify=False)
        call(UPDATE, name="hunted", password=new_secret())
        call(UPDATE, name="missing", password=new_secret())
        call(TEST, settings=json.dumps({"account_identifier": account, "username": "NOBODY", "password": new_secret()}))
        call(TEST, settings=json.dumps({"account_identifier": account, "unknown": new_secret()}))
        # A quotation mark that is not escaped: what comes after it is quoted as what was not understood.
        call(TEST, settings=f'{{"password": "abc"{new_secret()}"}}')
        # A misspelt argument: the function is never called, however its name is spelled.
        misspelt = CREATE.replace("password", "passwort", 1)
        for spelled in ("create_config", '"create_config"', "create_config /* what for */ ", "create_config -- why\n", 'u&"create\\005fconfig"'):
            template = misspelt.replace("create_config", spelled, 1)
            call(template, account=account, user="HUNTED", password=new_secret(), name="n", verify=False)
        if not bound:
            inner = UPDATE.format(name="'missing'", password=literal(new_secret())).replace("select", "perform", 1)
            call("do $do$ begin " + inner + "; end $do$")
            # The same where the block's own statement is not even understood, which is shown as its QUERY.
            call("do $do$ begin perform snowflake_bridge.create_config(acount_identifier => 'a', password => {password}); end $do$", password=new_secret())
            call(
                "do $do$ begin execute format('select snowflake_bridge.create_config(acount_identifier => %L, password => %L)', 'a', {password}); "
                "end $do$",
                password=new_secret(),
            )
            # In a function, of which the client's statement says nothing.
            body = UPDATE.format(name="'missing'", password=literal(new_secret())).replace("select", "perform", 1)
            connection.execute(f"create or replace function pg_temp.hide() returns void language plpgsql as $f$ begin {body}; end $f$")
            call("select pg_temp.hide()")
        connection.execute("select snowflake_bridge.delete_config('hunted')")
    return refused


def logs_of(bridge: Bridge) -> tuple[dict[str, int], int]:
    """How many secrets were found in the log under each setting and way of calling, and how many bytes it had."""
    directory, seen, counts, searched = bridge.cluster.data / "log", {}, {}, 0
    for name, settings in LOGGING.items():
        for bound in (True, False):
            kind = f"{name}, {'bound' if bound else 'literal'}"
            new_log(directory, seen, f"before {kind}", bridge)
            hunt = Hunt()

            def new_secret(hunt: Hunt = hunt) -> str:
                # In the characters of which JSON makes one word.
                secret = f"pw_{secrets.token_hex(12)}"
                hunt.add(secret, secret)
                return secret

            with logged(bridge, settings):
                refused = calls(bridge, new_secret, bound=bound)
            assert refused >= 5, (kind, refused)
            found = hunt.hits_in_all(new_log(directory, seen, kind, bridge))
            counts[kind] = sum(sum(hits.values()) for hits in found.values())
            searched += hunt.searched
    return counts, searched


def test_no_secret_in_the_log(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    bridge = make_bridge(LIBRARIES | COLLECTOR)
    counts, searched = logs_of(bridge)
    assert not {kind: count for kind, count in counts.items() if count}
    with pytest.raises(psycopg.errors.InvalidTextRepresentation) as caught:
        bridge.app.execute(TEST.format(settings=literal('{"password": "abc"told"}')))
    assert "told" in (caught.value.diag.message_detail or ""), "who has written it sees what is wrong"
    with with_package(UNGUARDED):
        unguarded, _ = logs_of(make_bridge(LIBRARIES | COLLECTOR))
    # Every statement that fails is logged by default, and the parameters of all where that is asked for.
    telling = {kind for kind, count in unguarded.items() if count}
    assert {kind for kind in counts if kind.endswith("literal")} <= telling
    assert {f"{name}, bound" for name in ("all statements", "durations", "parameters of errors", "transactions, sampled")} <= telling
    with capfd.disabled():
        print(
            f"\nsecurity: suite=secret channel=log settings={len(LOGGING)} formats={len(FORMATS)} ways={len(counts)} kb={searched >> 10} "
            f"hits=0 ways_with_hits_without_guard={len(telling)}"
        )


def test_what_the_log_cannot_be_kept_from(make_bridge: Callable[..., Bridge]) -> None:
    """A function of one's own that is given a secret to pass on: its statement is logged before anybody knows."""
    bridge = make_bridge(LIBRARIES)
    bridge.app.execute(
        "create function save(secret text) returns void language sql as "
        "$$ select snowflake_bridge.update_config('missing', password => secret, verify => false) $$"
    )
    bridge.app.execute(
        "create function save_misspelt(secret text) returns void language plpgsql as "
        "$$ begin execute format('select snowflake_bridge.update_config(pasword => %L)', secret); end $$"
    )
    for settings, expected in (({}, False), ({"log_statement": "all"}, True)):
        for function in ("save", "save_misspelt"):
            for call in (f"select {function}(%s)", "select {}({!r})"):
                secret = f"pw-{secrets.token_hex(12)}"
                with logged(bridge, settings), bridge.cluster.connect(DATABASE, "app") as connection, pytest.raises(psycopg.Error):
                    connection.execute(*((call, [secret]) if "%s" in call else (call.format(function, secret), None)))
                assert (secret in bridge.cluster.log_text()) is expected, f"{function}: as docs/security.md says"
        finding = bridge.admin.execute("select ok from snowflake_bridge.check() where item = 'statement_logging'").fetchone()
        assert finding == {"ok": True}, "nothing is set any more"


def used(bridge: Bridge, hunt: Hunt) -> None:
    """Secrets of every kind on their whole way: saved, changed, tested, encrypted anew, and used by the worker."""
    passphrase = remembered(hunt, "passphrase", f"phrase-{secrets.token_hex(12)}")
    pair = keys.generate(passphrase=passphrase)
    user = bridge.account.add_user("HUNTED", public_key=pair.public)
    hunt.add("password", user.password)
    hunt.add("private key", pair.private.splitlines()[5])
    bridge.configure(user)
    bridge.configure(user, name="pair", private_key=pair.private, private_key_passphrase=passphrase)
    client = bridge.account.add_oauth_client(user)
    bridge.configure(user, name="client", oauth_client_id=client.client_id, oauth_client_secret=remembered(hunt, "client secret", client.secret))
    bridge.configure(user, name="given", oauth_token=remembered(hunt, "access token", bridge.account.access_token(user)))
    wrong = remembered(hunt, "wrong password", f"pw-{secrets.token_hex(12)}")
    bridge.app.execute("select * from snowflake_bridge.test_connection(%s::jsonb)", [json.dumps({"account_identifier": bridge.account.host, "username": user.name, "password": wrong})])
    bridge.call("update_config", name="given", token=remembered(hunt, "token", f"pat-{secrets.token_hex(16)}"), verify=False)
    bridge.call("update_config", password=user.password)
    bridge.admin.execute("call snowflake_bridge.rotate_encryption_key()")
    bridge.watch()
    for config in ("default", "pair", "client"):
        bridge.run(f"by {config}", [{"a": 1}], snowflake_options={"config": config})
        bridge.completed(f"by {config}")
    for number, line in enumerate((bridge.cluster.keys / "keyring").read_text().splitlines()):
        if line.count(":") == 2:
            encoded = line.split(":")[1]
            hunt.add(f"key {number} as text", encoded)
            hunt.add(f"key {number}", base64.b64decode(encoded))


def remembered(hunt: Hunt, name: str, secret: str) -> str:
    """The secret, which is looked for from now on."""
    hunt.add(name, secret)
    return secret


def dumps(bridge: Bridge) -> Iterator[tuple[str, bytes]]:
    """What pg_dump and pg_dumpall write, and a base backup with its WAL."""
    directory = bridge.cluster.directory("dumps")
    program("pg_dump", bridge.cluster, f"--file={directory / 'plain.sql'}", DATABASE)
    program("pg_dump", bridge.cluster, "--format=custom", "--compress=0", f"--file={directory / 'custom'}", DATABASE)
    program("pg_dumpall", bridge.cluster, f"--file={directory / 'all.sql'}")
    program("pg_basebackup", bridge.cluster, f"--pgdata={directory / 'backup'}", "--checkpoint=fast", "--no-sync", "--wal-method=stream")
    yield from files(directory)


def statistics(bridge: Bridge) -> Iterator[tuple[str, bytes]]:
    """Views that show statements."""
    for view in ("pg_stat_activity", "pg_stat_statements", "pg_prepared_statements", "pg_cursors"):
        yield view, str(bridge.admin.execute(f"select * from {view}").fetchall()).encode()


def while_running(bridge: Bridge, hunt: Hunt) -> tuple[str, bytes]:
    """What others see of a call with a literal secret that waits for Snowflake."""
    bridge.standin.fault({"kind": "login"}, {"delay_ms": 60_000})
    mark = bridge.standin.audit_mark()
    secret = remembered(hunt, "literal", f"pw-{secrets.token_hex(12)}")
    with bridge.cluster.connect(DATABASE, "app") as connection:
        settings = json.dumps({"account_identifier": bridge.account.host, "username": "HUNTED", "password": secret})
        call = threading.Thread(target=connection.execute, args=[f"select snowflake_bridge.test_connection('{settings}'::jsonb)"])
        call.start()
        bridge.uploading({"kind": "login"}, mark)
        [row] = bridge.admin.execute("select * from pg_stat_activity where pid = %s", [connection.info.backend_pid]).fetchall()
        bridge.standin.clear_faults()
        call.join()
    assert row["query"] == "snowflake_bridge: test_connection" or secret in row["query"]
    return "pg_stat_activity, meanwhile", str(row).encode()


def channels_of(make_bridge: Callable[..., Bridge]) -> tuple[Bridge, Hunt, dict[str, dict[str, dict[str, int]]]]:
    """Everything where a secret may have been left, and what is found there."""
    # Every process of the server has this in its memory, so that it shows what is looked at.
    hunt = Hunt()
    bridge = make_bridge(LIBRARIES, variables={"HUNTED": remembered(hunt, ALWAYS_IN_MEMORY, secrets.token_hex(16))})
    bridge.admin.execute("create extension pg_stat_statements")
    used(bridge, hunt)
    running = while_running(bridge, hunt)
    bridge.admin.execute("checkpoint")
    worker = bridge.worker()
    return bridge, hunt, {
        "data": hunt.hits_in_all(files(bridge.cluster.data)),
        "dump": hunt.hits_in_all(dumps(bridge)),
        "statistics": hunt.hits_in_all([*statistics(bridge), running]),
        "core": hunt.hits_in_all(memory(worker, in_core_file=True)),
        # Not a channel, but what a core file would be taken from.
        "memory": hunt.hits_in_all(memory(worker, in_core_file=False)),
    }


def test_no_secret_in_any_channel(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    bridge, hunt, found = channels_of(make_bridge)
    in_memory = names(found.pop("memory"))
    assert ALWAYS_IN_MEMORY in in_memory
    assert not any(found.values()), found
    controls = careless(bridge, hunt)
    with with_package(UNGUARDED):
        _, _, unguarded = channels_of(make_bridge)
    assert ALWAYS_IN_MEMORY in names(unguarded["core"])
    assert unguarded["statistics"]
    with capfd.disabled():
        print(
            f"\nsecurity: suite=secret channels={' '.join(found)} mb={hunt.searched >> 20} hits=0 "
            f"hits_without_guard=statistics:{total(unguarded['statistics'])},core:{total(unguarded['core'])} "
            f"in_memory={len(in_memory)} found_when_careless={' '.join(f'{channel}:{count}' for channel, count in controls.items())}"
        )


def names(places: Mapping[str, Mapping[str, int]]) -> set[str]:
    """Which secrets were found, wherever."""
    return {name for hits in places.values() for name in hits}


def total(places: Mapping[str, Mapping[str, int]]) -> int:
    return sum(sum(hits.values()) for hits in places.values())


def careless(bridge: Bridge, hunt: Hunt) -> dict[str, int]:
    """A secret in a table of the application's is found in every channel, or the hunt would prove nothing."""
    secret = remembered(hunt, "careless", f"pw-{secrets.token_hex(12)}")
    bridge.admin.execute(f"do $$ begin create table careless as select '{secret}'::text as secret; end $$")
    bridge.admin.execute("checkpoint")
    shutil.rmtree(bridge.cluster.root / "dumps")
    data = hunt.hits_in_all(files(bridge.cluster.data))
    places = {
        "heap": {place: hits for place, hits in data.items() if place.startswith("base/")},
        "wal": {place: hits for place, hits in data.items() if place.startswith("pg_wal/")},
        "dump": hunt.hits_in_all(dumps(bridge)),
        "statistics": hunt.hits_in_all(statistics(bridge)),
    }
    counts = {channel: total(found) for channel, found in places.items()}
    assert all(counts.values()), counts
    return counts
