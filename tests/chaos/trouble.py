"""What goes wrong: fail points, the network, Snowflake's side, the server, and people who press buttons."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime

from chaos import intruder
from chaos.cancels import ENDED, Cancel
from chaos.credentials import Credentials
from chaos.jobs import Round
from chaos.world import TABLE, WATCH, World
from harness.standin import ROLE, WAREHOUSE

# Every named place of the product (`failpoint::reach` and `during`), and the first words of statements under way.
PLACES = (
    "claiming claimed reading read read-recorded reader-done recording intent-recorded put put-done staged prepared "
    "table-changed temporary-made temporary-loaded loaded committed completing mirroring mirrored clean-up settling "
    "recovering query-read COPY COMMIT BEGIN DELETE MERGE INSERT CREATE DESCRIBE SELECT ALTER UPDATE REMOVE DROP ROLLBACK"
).split()
ORDERS = {"kill": 35, "error": 30, "panic": 15, "sleep": 20}
# Snowflake ends a transaction that has been idle for five minutes and keeps others waiting. Here, sooner.
PATIENCE_SECONDS = 2.0
WIPED = (
    "K number(38,0), V number(38,0), X varchar, EXECUTION_ID varchar, UPLOADED_AT timestamp_tz, USER_ID varchar, UPLOAD_ID varchar"
)
WORKER_SECONDS = 20.0
# An attempt asks twice, for the one before it and for its own; nothing fails if all of these are about one upload.
DENIALS = 20
# What somebody may want to end, and what to send on its way again.
UNDER_WAY = ("queued", "retry", "claimed", "staged", "copying", "needs_credentials")
STOPPED = ("retry", "failed", "canceled")
STATEMENTS = ("copy into", "commit", "begin", "delete", "merge", "insert", "create", "describe", "select", "alter", "put")


class Trouble:
    """Makes trouble, one piece at a time, and counts it."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.kills = 0
        self._orders = 0
        self._posted = 0
        self._looked = 0.0
        self._wipes: list[threading.Thread] = []
        # When each transaction was first seen that no upload in flight holds.
        self._left_open: dict[int, float] = {}
        self.credentials = Credentials(world, rng, lambda: self.faults() + self.killed())

    def faults(self) -> int:
        """All that went wrong, apart from kills."""
        done = self.world.carried_out()
        orders = sum(count for (_, what), count in done.items() if what != "kill")
        network = sum(proxy.faults.total() for proxy in self.world.proxies)
        return orders + network + self.counts.total()

    def killed(self) -> int:
        """Processes that died by SIGKILL."""
        return self.kills + sum(count for (_, what), count in self.world.carried_out().items() if what == "kill")

    def make(self, round: Round) -> None:
        """One more thing goes wrong."""
        [draw] = self.rng.choices(
            [
                self.fail_point,
                self.snowflake,
                self.storm,
                self.reset,
                self.sessions,
                self.stage_credentials,
                self.short_copy,
                self.restart,
                self.kill_worker,
                self.end_worker,
                self.second_worker,
                self.people,
                self.configuration,
                self.refuse,
                self.watch_again,
                self.wipe,
                self.reload,
            ],
            [30, 26, 8, 3, 5, 3, 4, 2, 1, 1, 3, 16, 4, 3, 3, 6, 1],
        )
        draw(round)

    def stop(self) -> None:
        """Nothing goes wrong from now on."""
        self.world.withdraw_orders()
        for proxy in self.world.proxies:
            proxy.calm()
        self.counts["snowflake"] += self._posted - self.world.standin.faults_left()
        self._posted = 0
        self.world.standin.clear_faults()
        for account in self.world.accounts:
            account.complete_copies()
        self.world.standin.admin("DELETE", "validity")
        self.credentials.mend()
        while any(wipe.is_alive() for wipe in self._wipes):
            self.time_passes()
            time.sleep(0.1)
        self._wipes.clear()

    # --- each kind ------------------------------------------------------------------------------------------------

    def fail_point(self, _: Round) -> None:
        place = self.rng.choice(PLACES)
        [what] = self.rng.choices(list(ORDERS), list(ORDERS.values()))
        if what == "sleep":
            what += f" {self.rng.randrange(10, 500)}"
        self._orders += 1
        self.world.order(place, what, self._orders)

    def snowflake(self, _: Round) -> None:
        match = self.rng.choice(
            [
                {"kind": "query", "sql": r"^\s*" + self.rng.choice(STATEMENTS)},
                {"kind": "query", "sql": r"^\s*(copy into|commit)"},
                {"kind": "objectstore", "method": "PUT"},
                {"kind": "login"},
            ]
        )
        action = self.rng.choice(
            [
                {"lose_answer": True},
                {"lose_answer": True},
                {"status": self.rng.choice([429, 500, 503])},
                {"delay_ms": self.rng.randrange(50, 1_500)},
                {"cut_after": self.rng.randrange(0, 300)},
                {"cut_request_after": self.rng.randrange(0, 300)},
                {"black_hole": True},
            ]
        )
        times = 1 if "black_hole" in action else self.rng.randrange(1, 3)
        self.world.standin.fault(match, action, times=times)
        self._posted += times

    def storm(self, _: Round) -> None:
        """The network is bad for some time."""
        self.rng.choice(self.world.proxies).storm(self.rng.choice([0.02, 0.05, 0.2]))

    def weather(self) -> None:
        """Storms end, and credentials that are refused are noticed: asked after every job."""
        self.credentials.notice()
        for proxy in self.world.proxies:
            if proxy.level and self.rng.random() < 0.2:
                proxy.calm()

    def time_passes(self) -> None:
        """Transactions that were left open end."""
        now = time.monotonic()
        if now - self._looked > PATIENCE_SECONDS:
            self._looked = now
            self._end_left_open(now)

    def _end_left_open(self, now: float) -> None:
        running = {
            int(row[0]): account
            for account in self.world.accounts
            for row in account.sql("show transactions in account")
        }
        # Also those of which no upload knows: a statement that comes late, to a session whose transaction was ended, begins one.
        rows = self.world.attempt(
            "select t.known::bigint as id from unnest(%s::text[]) as t (known) where not exists (select from snowflake_bridge.uploads u "
            "where u.transaction_id = t.known and u.state in ('claimed', 'staged', 'copying'))",
            [[str(each) for each in running]],
            as_admin=True,
        )
        self._left_open = {row["id"]: self._left_open.get(row["id"], now) for row in rows or []}
        for each, since in self._left_open.items():
            if now - since > PATIENCE_SECONDS:
                with contextlib.suppress(RuntimeError):  # its session is busy after all
                    running[each].sql(f"select system$abort_transaction({each})")
                    self.counts["transaction left open"] += 1

    def reset(self, _: Round) -> None:
        self.rng.choice(self.world.proxies).reset_all()

    def sessions(self, round: Round) -> None:
        """A session ends, or its tokens have run out."""
        sessions = self.world.standin.admin("GET", "sessions")["sessions"]
        if not sessions:
            return
        session = self.rng.choice(sessions)["id"]
        method, body = self.rng.choice(
            [
                ("DELETE", {"id": session}),
                ("POST", {"id": session, "expire": "session"}),
                ("POST", {"id": session, "expire": "master"}),
            ]
        )
        round.has_ended_session |= method == "DELETE"
        with contextlib.suppress(RuntimeError):  # it has just ended by itself
            self.world.standin.admin(method, "sessions", body)
            self.counts["session"] += 1

    def stage_credentials(self, _: Round) -> None:
        body = self.rng.choice([{}, {"after_requests": 1}])
        self.world.standin.admin("POST", "expire-stage-credentials", body)
        self.counts["stage credentials"] += 1

    def short_copy(self, _: Round) -> None:
        self.rng.choice(self.world.accounts).shorten_copies(1)
        self.counts["short copy"] += 1

    def deny_commits(self) -> None:
        """Whoever asks what became of a COMMIT is told, for a while, that the transaction was rolled back: only the DELETE of a repeated
        load is left between the rows that are there and the same rows again."""
        column = {"name": "state", "type": "text", "nullable": True, "length": None, "precision": None, "scale": None}
        data = {"queryId": "01", "queryResultFormat": "json", "rowtype": [column], "rowset": [["rolled back"]], "total": 1}
        answer = json.dumps({"success": True, "code": None, "message": None, "data": data})
        self.world.standin.fault({"kind": "query", "sql": r"^\s*describe transaction"}, {"status": 200, "body": answer}, times=DENIALS)
        self._posted += DENIALS

    def restart(self, _: Round) -> None:
        how = self.rng.choice([signal.SIGINT, signal.SIGQUIT])
        self.world.bridge.cluster.stop(how)
        self.world.bridge.cluster.start()
        self.world.reconnect()
        self.counts["restart"] += 1

    def kill_worker(self, _: Round) -> None:
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def end_worker(self, _: Round) -> None:
        for pid in self._workers():
            self.world.attempt("select pg_terminate_backend(%s)", [pid], as_admin=True)
            self.counts["worker ended"] += 1

    def second_worker(self, _: Round) -> None:
        """Another worker is started by mistake, and most often can take the place of the first."""
        intruder.start(self.world, takes_over=self.rng.random() < 0.7)
        self.counts["second worker"] += 1

    def displace(self) -> None:
        """Another worker takes the place of the first, for which code of the application has to run at that moment."""
        before = intruder.takeovers(self.world)
        until = time.monotonic() + WORKER_SECONDS
        while intruder.takeovers(self.world) == before and time.monotonic() < until:
            intruder.start(self.world, takes_over=True)
            self.counts["second worker"] += 1

    def workers(self) -> list[int]:
        """The processes that are the worker; after other trouble it may be starting anew, and another one leaving."""
        until = time.monotonic() + WORKER_SECONDS
        while len(workers := self._workers()) != 1 and time.monotonic() < until:
            time.sleep(0.1)
        return workers

    def _workers(self) -> list[int]:
        rows = self.world.attempt(
            "select pid from pg_stat_activity where backend_type = 'snowflake_bridge worker'", as_admin=True
        )
        return [row["pid"] for row in rows or []]

    def reload(self, _: Round) -> None:
        self.world.attempt("select pg_reload_conf()", as_admin=True)
        self.counts["reload"] += 1

    def people(self, round: Round) -> None:
        """Somebody cancels an upload, or sends one on its way again that has stopped or waits."""
        wish, states = self.rng.choice([(self._cancel, UNDER_WAY), (self._cancel, UNDER_WAY), (self._cancel, ENDED), (self._retry, STOPPED)])
        rows = self.world.attempt(
            "select id from snowflake_bridge.uploads where execution_id like %s and state = any (%s) order by id",
            [f"{round.number}-%", list(states)],
            as_admin=True,
        )
        if rows:
            wish(round, self.rng.choice(rows)["id"])

    def _cancel(self, round: Round, upload: int) -> None:
        round.unwanted.add(upload)
        rows = self.world.attempt("select * from cancel_and_look(%s)", [upload], as_admin=True)
        for row in rows or []:
            round.cancels.append(Cancel(upload, **row, known_at=datetime.now(UTC)))
        self.counts["cancel_upload"] += 1

    def _retry(self, round: Round, upload: int) -> None:
        round.retry(upload)
        self.world.attempt("select snowflake_bridge.retry_upload(%s)", [upload], as_admin=True)
        self.counts["retry_upload"] += 1

    def configuration(self, _: Round) -> None:
        """Somebody saves a configuration again, tested or not: the secret, or something else about it."""
        tenant = self.rng.choice(self.world.tenants)
        change = self.rng.choice([tenant.secret(), {"warehouse": WAREHOUSE}, {"role": ROLE}])
        if tenant is self.credentials.refused:  # which they know, and try nothing
            return
        self.world.save(tenant, change, verify=self.rng.random() < 0.5)
        self.counts["configuration"] += 1

    def refuse(self, round: Round) -> None:
        """Somebody's credentials are refused from now on, if nobody else's are."""
        self.credentials.refuse(round)

    def watch_again(self, round: Round) -> None:
        """The watch ends, which cancels what waits, and begins anew: in one transaction, so that no execution is missed."""
        round.is_unwatched = True
        self.world.attempt(f"select snowflake_bridge.unwatch('{TABLE}'), {WATCH}", as_admin=True)
        self.counts["watch"] += 1

    def wipe(self, round: Round) -> None:
        """Somebody empties a table, drops it or puts another one in its place. That waits for open transactions, and nobody here waits
        for that."""
        tenant = self.rng.choice(self.world.tenants)
        table = round.table("wiped")
        name = f"{tenant.user.database}.{tenant.user.schema}.{table}"
        sql = self.rng.choice([f"truncate table {name}", f"drop table {name}", f"create or replace table {name} ({WIPED})"])

        def carry_out() -> None:
            with contextlib.suppress(RuntimeError):  # there is none yet
                tenant.account.sql(sql)
                round.wiped[tenant.account.name, table] = datetime.now(UTC)

        self._wipes.append(threading.Thread(target=carry_out))
        self._wipes[-1].start()
        self.counts["wipe"] += 1


__all__ = ["PLACES", "Trouble"]
