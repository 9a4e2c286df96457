"""What one owner may keep here is bounded, also where several sessions ask at once, and is nobody else's loss; without the guards there is
no bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from harness import wait
from harness.bridge import DATABASE, TABLE, Bridge
from harness.installation import with_package
from security.test_escalation import UNGUARDED

MOST_CONFIGS = 3
MOST_MEGABYTES = 1
SETTINGS = {
    "snowflake_bridge.max_configs_per_owner": str(MOST_CONFIGS),
    "snowflake_bridge.max_spool_per_owner": f"{MOST_MEGABYTES}MB",
    # What was queued is to wait.
    "snowflake_bridge.databases": "elsewhere",
}
CONFIG = {"account_identifier": "myorg-myacct", "username": "u", "password": "p", "verify": False}
# About 0.6 MB, which no compression makes smaller: two of them are too much.
LARGE = "select decode(md5(n::text), 'hex') from generate_series(1, 40000) n"
RANDOM = "uuid_send(gen_random_uuid())"
# Files are looked at every 16 MB, of which this has more than twice as many.
ROWS = 600_000
ENDLESS = f"select nextval('seen'), {RANDOM} a, {RANDOM} b, {RANDOM} c, {RANDOM} d from generate_series(1, {ROWS})"


class Owner:
    """The application as it takes what it can. Each way is an attack; what is left is taken away again."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.most_spooled = 0
        bridge.app.execute("create sequence seen")
        bridge.call("create_config", **CONFIG)

    def run(self) -> dict[str, str]:
        """Every way, and whether it has brought more than there may be."""
        ways = (
            self.configs_one_by_one,
            self.configs_at_once,
            self.configs_in_an_old_snapshot,
            self.configs_in_a_transaction,
            self.files_one_by_one,
            self.files_at_once,
            self.files_in_an_old_snapshot,
            self.files_in_a_transaction,
            self.files_canceled_in_a_transaction,
            self.files_under_another_role,
            self.a_file_without_end,
        )
        outcomes = {}
        for way in ways:
            try:
                way()
                outcomes[way.__name__] = "succeeded" if self.has_too_much() else "nothing"
            except psycopg.Error as error:
                outcomes[way.__name__] = str(error.sqlstate)
            assert outcomes[way.__name__] == "succeeded" or not self.has_too_much(), way.__name__
            self.clear()
        return outcomes

    def has_too_much(self) -> bool:
        [row] = self.bridge.admin.execute(
            "select (select count(*) from snowflake_bridge.snowflake_configurations where user_id = 'app') as configs, "
            "(select coalesce(sum((manifest ->> 'bytes')::bigint), 0) from snowflake_bridge.uploads where user_id = 'app') as bytes"
        ).fetchall()
        return bool(row["configs"] > MOST_CONFIGS or max(row["bytes"], self.most_spooled) > MOST_MEGABYTES << 20)

    def spooled(self) -> int:
        """What lies in the spool, whatever the queue says."""
        files = (self.bridge.cluster.data / "snowflake_bridge_spool").rglob("*")
        return sum(file.stat().st_size for file in files if file.suffix == ".parquet")

    def clear(self) -> None:
        admin = self.bridge.admin
        self.most_spooled = 0
        admin.execute("delete from snowflake_bridge.snowflake_configurations where user_id = 'app' and name <> 'default'")
        admin.execute("delete from snowflake_bridge.uploads")

    @contextmanager
    def session(self, *begin: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        with closing(self.bridge.cluster.connect(DATABASE, "app")) as session:
            for statement in begin:
                session.execute(statement)
            yield session

    def config(self, session: Any, number: int) -> None:
        self.bridge.call("create_config", connection=session, **CONFIG, name=f"number {number}")

    def file(self, session: Any, query: str = LARGE) -> int:
        return int(self.bridge.call("upload_query", connection=session, query=query, table_name="t"))

    def configs_one_by_one(self) -> None:
        for number in range(MOST_CONFIGS):
            self.config(self.bridge.app, number)

    def configs_at_once(self) -> None:
        """Two sessions that both see room for one more."""
        for number in range(MOST_CONFIGS - 2):
            self.config(self.bridge.app, number)
        with self.session("begin") as one, self.session() as two:
            self.config(one, 8)
            raised: list[psycopg.Error] = []

            def other() -> None:
                try:
                    self.config(two, 9)
                except psycopg.Error as error:
                    raised.append(error)

            thread = threading.Thread(target=other)
            thread.start()
            pid = two.info.backend_pid
            waits = "select from pg_locks where pid = %s and not granted"
            wait.until(
                lambda: not thread.is_alive() or self.bridge.admin.execute(waits, [pid]).fetchall(), "the other one waits or has ended"
            )
            # Who has room does not wait for who has none.
            self.bridge.call("create_config", connection=self.bridge.admin, **CONFIG)
            self.bridge.call("delete_config", connection=self.bridge.admin)
            one.execute("commit")
            thread.join()
            if raised:
                raise raised[0]

    def configs_in_an_old_snapshot(self) -> None:
        with self.session("begin isolation level repeatable read", "select 1") as session:
            for number in range(MOST_CONFIGS - 1):
                self.config(self.bridge.app, number)
            self.config(session, 9)
            session.execute("commit")

    def configs_in_a_transaction(self) -> None:
        with self.session("begin") as session:
            for number in range(MOST_CONFIGS):
                session.execute("savepoint s")
                self.config(session, number)
            session.execute("commit")

    def files_one_by_one(self) -> None:
        self.file(self.bridge.app)
        self.file(self.bridge.app)

    def files_at_once(self) -> None:
        """The one is not to be seen when the other asks."""
        with self.session("begin") as one, self.session("begin") as two:
            self.file(one)
            self.file(two)
            one.execute("commit")
            two.execute("commit")

    def files_in_an_old_snapshot(self) -> None:
        with self.session("begin isolation level repeatable read", "select 1") as session:
            self.file(self.bridge.app)
            self.file(session)
            session.execute("commit")

    def files_in_a_transaction(self) -> None:
        with self.session("begin") as session:
            self.file(session)
            session.execute("savepoint s")
            self.file(session)
            session.execute("commit")

    def files_canceled_in_a_transaction(self) -> None:
        """They are there until it commits."""
        with self.session("begin") as session:
            for _ in range(2):
                canceled = self.file(session)
                assert self.bridge.call("cancel_upload", connection=session, id=canceled)
                session.execute("savepoint s")
            self.most_spooled = self.spooled()
            session.execute("commit")

    def files_under_another_role(self) -> None:
        """What a transaction has taken as somebody else hides nothing."""
        with self.session("begin") as one, self.session() as two:
            self.file(one)
            one.execute("set role other")
            self.file(one, "select 1")
            self.file(two)
            one.execute("commit")

    def a_file_without_end(self) -> None:
        self.file(self.bridge.app, ENDLESS)


def owner(bridge: Bridge) -> Owner:
    """With another role that the application may take on."""
    bridge.admin.execute("create role other; grant other to app")
    bridge.admin.execute("select snowflake_bridge.grant_usage('other')")
    bridge.admin.execute("grant create, usage on schema public to app")
    with bridge.app.transaction():
        bridge.app.execute("set local role other")
        bridge.call("create_config", **CONFIG)
    return Owner(bridge)


def test_what_one_owner_may_keep(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    bridge = make_bridge(SETTINGS)
    attacker = owner(bridge)
    outcomes = attacker.run()
    assert set(outcomes.values()) == {"53400"}, outcomes
    # Reading has ended long before the rows have.
    [seen] = bridge.admin.execute("select last_value from seen").fetchall()
    assert seen["last_value"] < ROWS * 5 // 6
    spool = bridge.cluster.data / "snowflake_bridge_spool"
    assert not list(spool.glob("*/share-*")), "what was announced is taken back"
    with with_package(UNGUARDED):
        unguarded = owner(make_bridge(SETTINGS)).run()
    assert set(unguarded.values()) == {"succeeded"}, f"harmless even without the guard: {unguarded}"
    with capfd.disabled():
        print(f"\nsecurity: suite=quota attacks={len(outcomes)} succeeded=0 succeeded_without_guard={len(unguarded)}")


def test_who_is_at_the_limit_is_told_what_helps(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(SETTINGS)
    attacker = owner(bridge)
    first = attacker.file(bridge.app)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match='rows of user "app".*max_spool_per_owner, 1 MB') as caught:
        attacker.file(bridge.app)
    assert "cancel_upload" in (caught.value.diag.message_hint or "")
    # Somebody else has as much, and a savepoint gives back what it has taken.
    bridge.call("create_config", connection=bridge.admin, **CONFIG)
    attacker.file(bridge.admin)
    assert bridge.call("cancel_upload", id=first)
    with attacker.session("begin") as session:
        session.execute("savepoint s")
        canceled = attacker.file(session)
        assert bridge.call("cancel_upload", connection=session, id=canceled)
        session.execute("rollback to s")
        attacker.file(session)
        session.execute("rollback")
    attacker.file(bridge.app)
    for number in range(MOST_CONFIGS - 1):
        attacker.config(bridge.app, number)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match='user "app" has as many') as caught:
        attacker.config(bridge.app, 9)
    assert "max_configs_per_owner" in (caught.value.diag.message_hint or "")
    # A change is none more.
    bridge.call("update_config", name="number 0", warehouse="W", verify=False)


UNENDED = "state not in ('completed', 'failed', 'canceled')"
MOST_A_DAY = {"snowflake_bridge.max_daily_upload_per_owner": f"{MOST_MEGABYTES}MB", "snowflake_bridge.retry_max_delay": "1s"}


class Sender:
    """The application as it sends what it can within a day. Each way is an attack, of at least three files of which only one may go."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.user = bridge.ready()
        bridge.configure(self.user, name="another")

    def run(self) -> dict[str, str]:
        """Every way, and what has come of it."""
        ways = (self.queries_one_by_one, self.queries_at_once, self.rows, self.rows_again, self.by_another_connection, self.all_in_one)
        outcomes = {}
        for way in ways:
            way()
            wait.until(self.has_ended, f"{way.__name__} goes on no more", 60)
            outcomes[way.__name__] = "succeeded" if self.has_sent_too_much() else "waits" if self.rows_of(UNENDED) else "refused"
            self.clear()
        return outcomes

    def rows_of(self, what: str) -> list[dict[str, Any]]:
        return self.bridge.admin.execute(f"select * from snowflake_bridge.uploads u where {what} order by id").fetchall()

    def waiting(self) -> list[dict[str, Any]]:
        """Each is looked at again every second, and is none of them meanwhile."""
        return self.rows_of("state = 'retry' and error_sqlstate = '53400'")

    def has_ended(self) -> bool:
        """Nothing is under way, and what is left has been refused, or waits behind what was."""
        open_ones = self.rows_of(UNENDED)
        if any(row["state"] in ("claimed", "staged", "copying") for row in open_ones):
            return False
        return not open_ones or any(row["error_sqlstate"] == "53400" for row in open_ones)

    def has_sent_too_much(self) -> bool:
        return sum(row["byte_count"] for row in self.rows_of("state = 'completed'")) > MOST_MEGABYTES << 20

    def clear(self) -> None:
        for row in self.rows_of(UNENDED):
            self.bridge.call("cancel_upload", connection=self.bridge.admin, id=row["id"])
        wait.until(lambda: not self.rows_of(UNENDED), "what waited is canceled")
        self.bridge.admin.execute("delete from snowflake_bridge.uploads")
        self.bridge.admin.execute("delete from snowflake_bridge.sent_bytes")
        self.bridge.reload()

    def query(self, query: str = LARGE, **target: str) -> int:
        return int(self.bridge.call("upload_query", query=query, table_name="t", **target))

    def row(self, name: str) -> None:
        self.bridge.run(name, [{"n": md5} for md5 in map(str, self.noise())])

    def noise(self) -> list[str]:
        [row] = self.bridge.admin.execute(
            "select array_agg(encode(sha256(n::text::bytea), 'hex')) as noise from generate_series(1, 20000) n"
        ).fetchall()
        return list(row["noise"])

    def queries_one_by_one(self) -> None:
        for _ in range(3):
            upload = self.query()
            wait.until(lambda: self.has_ended() or self.rows_of(f"id = {upload} and state = 'completed'"), "one after the other", 60)  # noqa: B023

    def queries_at_once(self) -> None:
        with self.bridge.app.transaction():
            for _ in range(3):
                self.query()

    def rows(self) -> None:
        with self.bridge.app.transaction():
            for number in range(3):
                self.row(f"row {number}")

    def rows_again(self) -> None:
        """The same execution, which replaces what it has loaded before."""
        self.row("again")
        for _ in range(2):
            wait.until(self.has_ended, "the one before", 60)
            self.bridge.call("upload", execution_id="again")

    def by_another_connection(self) -> None:
        with self.bridge.app.transaction():
            for config in ("default", "another", "another"):
                self.query(config=config)

    def all_in_one(self) -> None:
        self.query(LARGE.replace("40000", "160000"))


def test_what_one_owner_may_send_in_a_day(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = Sender(make_bridge(MOST_A_DAY)).run()
    assert outcomes.pop("all_in_one") == "refused"
    assert set(outcomes.values()) == {"waits"}, outcomes
    with with_package(UNGUARDED):
        unguarded = Sender(make_bridge(MOST_A_DAY)).run()
    assert set(unguarded.values()) == {"succeeded"}, f"harmless even without the guard: {unguarded}"
    with capfd.disabled():
        print(f"\nsecurity: suite=quota day=full attacks={len(unguarded)} succeeded=0 succeeded_without_guard={len(unguarded)}")


def test_who_has_sent_enough_waits_for_the_next_day(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.retry_max_delay": "1s"})

    def limit(megabytes: int) -> None:
        bridge.admin.execute(f"alter system set snowflake_bridge.max_daily_upload_per_owner = '{megabytes}MB'")
        bridge.reload()

    limit(MOST_MEGABYTES)
    sender = Sender(bridge)
    sender.queries_at_once()
    wait.until(sender.has_ended, "one has gone", 60)
    waiting = wait.until(sender.waiting, "the others wait")[0]
    assert 'user "app" would send more than 1 MB within 24 hours' in waiting["error_message"]
    assert "max_daily_upload_per_owner" in waiting["error_message"] and "goes on by itself" in waiting["error_hint"]
    assert waiting["attempt_count"] == 0
    # Somebody else has a day of their own.
    bridge.configure(sender.user, connection=bridge.admin)
    theirs = bridge.call("upload_query", connection=bridge.admin, query=LARGE, table_name="t")
    wait.until(lambda: sender.rows_of(f"id = {theirs} and state = 'completed'"), "another owner's goes", 60)
    # What was sent is a day old: the next one goes, and no more.
    bridge.admin.execute("update snowflake_bridge.sent_bytes set hour = hour - interval '25 hours'")
    wait.until(lambda: len(sender.rows_of("state = 'completed' and user_id = 'app'")) == 2, "the next one has gone", 60)
    wait.until(sender.has_ended, "the last one waits", 60)
    wait.until(lambda: len(sender.rows_of(UNENDED)) == 1, "none but one")
    # A setting that is raised counts at once.
    limit(10)
    wait.until(lambda: len(sender.rows_of("state = 'completed' and user_id = 'app'")) == 3, "all have gone", 60)
    # What can never go is not waited for.
    large = sender.query(LARGE.replace("40000", "1200000"))
    wait.until(lambda: sender.rows_of(f"id = {large} and state = 'failed'"), "it has failed", 60)
    [failed] = sender.rows_of(f"id = {large}")
    assert failed["error_sqlstate"] == "53400" and "its files take" in failed["error_message"], failed


def without_room(bridge: Bridge) -> Bridge:
    """Nothing is read while less is free than anybody has."""
    bridge.ready()
    bridge.app.execute("create function rows_of(id text) returns table (n int) language sql as 'select 1'")
    bridge.app.execute("select snowflake_bridge.watch('public.others', true, result_function => 'rows_of(text)')")
    bridge.run("in its row", [{"n": 1}])
    bridge.app.execute("insert into others (execution_id, status, snowflake_enabled) values ('by a function', 'completed', true)")
    return bridge


def test_a_disk_is_not_filled(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"snowflake_bridge.min_free_space": "1000000GB", "snowflake_bridge.max_attempts": "1000"}
    bridge = without_room(make_bridge(settings))
    for execution in ("in its row", "by a function"):
        # The next try takes the message away.
        upload = wait.until(
            lambda name=execution: found if (found := bridge.upload(name))["error_message"] else None, f"{execution} was tried"
        )
        assert upload["error_sqlstate"] == "53100" and "min_free_space" in upload["error_message"], upload
        assert upload["state"] in ("retry", "claimed"), upload
    with pytest.raises(psycopg.errors.DiskFull, match="min_free_space") as caught:
        bridge.call("upload_query", query="select 1", table_name="t")
    assert "Free space" in (caught.value.diag.message_hint or "")
    [space] = bridge.admin.execute("select ok, hint from snowflake_bridge.check() where item = 'spool_space'").fetchall()
    assert not space["ok"] and "min_free_space" in space["hint"]
    with with_package(UNGUARDED):
        unguarded = without_room(make_bridge(settings))
        unguarded.completed("in its row")
        sql = "select from snowflake_bridge.uploads where execution_id = 'by a function' and state = 'completed'"
        wait.until(lambda: unguarded.admin.execute(sql).fetchall(), "it is read all the same")
        unguarded.call("upload_query", query="select 1", table_name="t")
    with capfd.disabled():
        print("\nsecurity: suite=quota disk=full attacks=3 succeeded=0 succeeded_without_guard=3")
