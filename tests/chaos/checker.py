"""Compares three sides row by row: what the database says that each execution's rows are, what `uploads` says became of
them, and what is in the tables, read by the official client.

An execution's last upload tells what has to be there. Completed: exactly the rows that the source has now, with this
upload's id and its user's, as many as it recorded. Canceled: what the last completed upload before it brought, whole. Tables that
are merged into or replaced as a whole hold what the last of their completed uploads brought. Where somebody has emptied or dropped
a table, what was queued before that is there whole, or not at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chaos.cancels import IN_SNOWFLAKE, ON_REQUEST, OVERTAKEN, UNWATCHED, broken_promise, is_meant, may_be_there
from chaos.jobs import Round, text
from chaos.world import APPLICATION, FUNCTION_TABLE, TABLE, Tenant, World
from harness import reader

# What still runs was not to be uploaded, unless somebody has sent it by hand.
FINISHED = "(status <> 'running' or exists (select from snowflake_bridge.uploads u where u.execution_id = e.execution_id))"
SOURCES = f"""
    select e.execution_id, e.user_id, r.k, r.v, r.x, r.amount
    from {TABLE} e left join lateral jsonb_to_recordset(e.result_rows) as r (k int, v int, x text, amount numeric) on true
    where e.execution_id like %(round)s and {FINISHED}
    union all
    select e.execution_id, null, r.k, r.v, r.x, null
    from {FUNCTION_TABLE} e left join results r using (execution_id) where e.execution_id like %(round)s
"""
UPLOADS = """
    select id, u.upload_id::text as upload_id, watch_id, u.execution_id, state, row_count, needs_mirror, error_message, error_hint,
        created_at, completed_at, transaction_id, options ->> 'table_name' as target, coalesce(options ->> 'strategy', 'append') as strategy, row_user_id, query
    from snowflake_bridge.uploads u left join queries q on q.upload_id = u.id
    where u.execution_id like %(round)s order by id
"""
# Entered in the transaction that queued them.
NEVER_QUEUED = """
    select execution_id from queries q where execution_id like %(round)s
    and not exists (select from snowflake_bridge.uploads u where u.id = q.upload_id)
"""
MIRRORS = f"""
    select execution_id, snowflake_status as status, snowflake_row_count as row_count from {TABLE} e
    where execution_id like %(round)s and {FINISHED}
    union all
    select execution_id, snowflake_status, snowflake_row_count from {FUNCTION_TABLE} where execution_id like %(round)s
"""

Row = tuple[Any, ...]  # k, v, x, amount
# Of each kind, in one round.
MAX_FINDINGS = 8
STATUS = {"completed": "completed", "canceled": "failed", "failed": "failed", "needs_credentials": "failed"}


@dataclass
class Verdict:
    """What was found. All of the last four should be zero."""

    rows: int = 0
    lost: int = 0
    doubled: int = 0
    unverified: int = 0
    stuck: int = 0
    findings: list[str] = field(default_factory=list)

    def say(self, what: str, count: int, finding: str) -> None:
        """Counts a finding, if there is one, and keeps the first few."""
        if count:
            setattr(self, what, getattr(self, what) + count)
            if sum(kept.startswith(what) for kept in self.findings) < MAX_FINDINGS:
                self.findings.append(f"{what}: {finding}")

    def compare(self, wanted: Counter[Row], found: Counter[Row], what: str) -> None:
        """Rows that are missing, and rows that should not be there."""
        lost, doubled = wanted - found, found - wanted
        self.say("lost", lost.total(), f"{what}: {shown(lost)}")
        self.say("doubled", doubled.total(), f"{what}: {shown(doubled)}")

    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.doubled or self.unverified or self.stuck)


def shown(rows: Counter[Row]) -> str:
    """The first of some rows, for a message."""
    some = list(rows.elements())
    return f"{len(some)} rows, such as {some[0]}" if some else "none"


def uploads_of(world: World, round: Round) -> list[dict[str, Any]]:
    """What the database says of a round's uploads, in the order of the queue."""
    return world.ask(UPLOADS, {"round": f"{round.number}-%"})


def check(world: World, round: Round) -> Verdict:
    """Judges a round whose uploads have all come to their end."""
    return _Check(world, round).run()


class _Check:
    def __init__(self, world: World, round: Round) -> None:
        self.world = world
        self.round = round
        self.verdict = Verdict()
        mine = {"round": f"{round.number}-%"}
        self.uploads = uploads_of(world, round)
        self.forgotten = {key_of(upload): upload for upload in round.forgotten}
        self.never_queued = [row["execution_id"] for row in world.ask(NEVER_QUEUED, mine)]
        self.mirrors = {row["execution_id"]: row for row in world.ask(MIRRORS, mine)}
        # When somebody has last emptied the table that is looked at.
        self.wiped: datetime | None = None
        self.sources: dict[str, Counter[Row]] = {}
        self.users: dict[str, str | None] = {}
        for row in world.ask(SOURCES, mine):
            rows = self.sources.setdefault(row["execution_id"], Counter())
            self.users[row["execution_id"]] = row["user_id"]
            if row["k"] is not None:
                rows[row["k"], row["v"], row["x"], row["amount"]] += 1

    def run(self) -> Verdict:
        for upload in self.uploads:
            if upload["state"] not in STATUS or upload["needs_mirror"]:
                self.verdict.say("stuck", 1, f"{brief(upload)}")
        self._executions_have_uploads()
        self._mirrors()
        self._cancels()
        by_table: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for upload in self.uploads:
            tenant = self._tenant(upload)
            by_table[tenant.account.name, upload["target"]].append(upload)
        for (account, table), uploads in by_table.items():
            tenant = next(tenant for tenant in self.world.tenants if tenant.account.name == account)
            self.wiped = self.round.wiped.get((account, table))
            found = self._table(tenant, table, uploads)
            self.verdict.rows += sum(rows.total() for rows in found.values())
            judge = {"upsert": self._upserted, "replace": self._replaced, "append": self._appended}
            judge[uploads[0]["strategy"]](table, uploads, found)
        return self.verdict

    def _tenant(self, upload: dict[str, Any]) -> Tenant:
        """Whose account an upload's rows go to."""
        return self.world.tenant(upload["row_user_id"] if upload["watch_id"] else None)

    def _user(self, upload: dict[str, Any]) -> str | None:
        """Whose rows an upload's are."""
        return self.users[upload["execution_id"]] if upload["watch_id"] else APPLICATION

    def _executions_have_uploads(self) -> None:
        queued = {upload["execution_id"] for upload in self.uploads}
        for execution in self.sources.keys() - queued:
            self.verdict.say("lost", 1, f"execution {execution} has finished and was never queued")
        for execution in self.never_queued:
            self.verdict.say("lost", 1, f"query {execution} was never queued")

    def _mirrors(self) -> None:
        """The application's row says what became of the last upload."""
        for upload in last_of_each(self.uploads):
            mirror = self.mirrors.get(upload["execution_id"]) if upload["watch_id"] else None
            if mirror is None or upload["needs_mirror"] or upload["state"] not in STATUS:
                continue
            wrong = mirror["status"] != STATUS[upload["state"]] or (
                upload["state"] == "completed" and mirror["row_count"] != upload["row_count"]
            )
            self.verdict.say("unverified", int(wrong), f"the row says {dict(mirror)}, the upload {brief(upload)}")

    def _cancels(self) -> None:
        """What was answered to those who wanted to end an upload, and that nobody else's has ended so."""
        by_id = {upload["id"]: upload for upload in self.uploads}
        for cancel in self.round.cancels:
            upload = by_id[cancel.upload]
            broken = broken_promise(cancel, upload, lambda upload=upload: self._load_began(upload))
            self.verdict.say("unverified", int(bool(broken)), f"{broken}: {cancel}, {brief(upload)}")
        last = {execution_of(upload): upload["id"] for upload in self.uploads}
        for upload in (upload for upload in self.uploads if upload["state"] == "canceled"):
            is_asked, is_overtaken = upload["id"] in self.round.unwanted, last[execution_of(upload)] > upload["id"]
            reasons = {
                # What a newer one has overtaken is found out about as if somebody had asked.
                ON_REQUEST: is_asked or is_overtaken,
                OVERTAKEN: is_overtaken,
                UNWATCHED: self.round.is_unwatched,
                IN_SNOWFLAKE: self.round.has_ended_session,
            }
            self.verdict.say("lost", int(not is_meant(upload, reasons)), f"nobody wanted that: {brief(upload)}")

    def _load_began(self, upload: dict[str, Any]) -> datetime | None:
        """When Snowflake has begun the transaction that has loaded an upload; `None` if it had no rows to load."""
        if upload["transaction_id"] is None:
            return None
        [row] = self._tenant(upload).account.sql(f"describe transaction {upload['transaction_id']}")
        return datetime.fromtimestamp(float(row[4].split()[0]), UTC)

    def _table(self, tenant: Tenant, table: str, uploads: list[dict[str, Any]]) -> dict[tuple[str, str], Counter[Row]]:
        """The table's rows by execution and upload. That they are their user's is checked here."""
        users = {upload["upload_id"]: self._user(upload) for upload in uploads}
        name = f'"{tenant.user.database}"."{tenant.user.schema}"."{table}"'
        found: dict[tuple[str, str], Counter[Row]] = defaultdict(Counter)
        if not reader.query(
            tenant.account, tenant.user, f'show tables like \'{table}\' in schema "{tenant.user.database}"."{tenant.user.schema}"'
        ):
            return found
        columns = reader.columns(tenant.account, tenant.user, name)
        if "K" not in columns:  # every result so far was without rows, and so without columns
            return found
        amount = "AMOUNT" if "AMOUNT" in columns else "NULL"
        sql = f"select EXECUTION_ID, UPLOAD_ID, USER_ID, K, V, X, {amount} from {name}"
        for execution, upload, user, *row in reader.query(tenant.account, tenant.user, sql):
            found[execution, upload][tuple(row)] += 1
            is_other = upload in users and user != users[upload]
            self.verdict.say("unverified", int(is_other), f"{table}: a row of {upload} is {user}'s, and not {users.get(upload)}'s")
        return found

    def _source(self, upload: dict[str, Any]) -> Counter[Row]:
        """The rows that the database has for this upload now."""
        if upload["query"] is None:
            return self.sources[upload["execution_id"]]
        return Counter((row["k"], row["v"], row["x"], None) for row in self.world.ask(upload["query"]))

    # --- append ---------------------------------------------------------------------------------------------------

    def _appended(self, table: str, uploads: list[dict[str, Any]], found: dict[tuple[str, str], Counter[Row]]) -> None:
        expected: set[tuple[str, str]] = set()
        for last in last_of_each(uploads):
            history = [upload for upload in uploads if execution_of(upload) == execution_of(last)]
            # Of what nobody knows the end of the rows are there, whole, or not at all; the last that is there has replaced the others.
            done = [upload for upload in loaded(history) if upload["state"] == "completed" or found.get(key_of(upload))]
            if not done:
                continue
            source = done[-1]
            key = key_of(source)
            expected.add(key)
            rows = found.get(key, Counter())
            if not rows and (self.wiped and source["created_at"] < self.wiped or self._was_replaced(source)):
                continue
            what = f"{table}, upload {source['id']} of execution {key[0]}"
            is_known = source["state"] == "completed"
            recorded = source["row_count"] if is_known else rows.total()
            is_as_now = source["query"] is not None or source is last and is_known
            self.verdict.compare(self._source(source) if is_as_now else whole(key[0], rows, recorded), rows, what)
            self.verdict.say(
                "unverified", int(recorded != rows.total()), f"{what} recorded {recorded} rows, there are {rows.total()}"
            )
        for key in found.keys() - expected:
            if upload := self.forgotten.get(key):
                self._is_whole(table, upload, found[key])
            else:
                of = [brief(upload) for upload in uploads if upload["execution_id"] == key[0]]
                self.verdict.say("doubled", found[key].total(), f"{table}: nobody should have left rows of {key}, whose uploads are {of}")

    # --- what a server has brought that was lost ------------------------------------------------------------------

    def _was_replaced(self, upload: dict[str, Any]) -> bool:
        """Whether a forgotten upload of the same execution may have replaced the rows of one that had completed before."""
        if not self.round.failed_over_at or upload["completed_at"] > self.round.failed_over_at:
            return False
        return any(execution == upload["execution_id"] for execution, _ in self.forgotten)

    def _is_whole(self, table: str, upload: dict[str, Any], rows: Counter[Row]) -> None:
        """All rows of a forgotten upload are there, each once."""
        keys = Counter(row[0] for row in rows.elements())
        self.verdict.say("doubled", keys.total() - len(keys), f"{table}: forgotten rows of {brief(upload)}")
        missing = max(0, (upload["row_count"] or 0) - len(keys))
        self.verdict.say("lost", missing, f"{table}: forgotten rows of {brief(upload)}")

    # --- the others -----------------------------------------------------------------------------------------------

    def _candidates(self, loaded: list[dict[str, Any]]) -> set[str]:
        """Which uploads may have come last: the last that has completed, those that somebody has sent on their way again or whose
        credentials were refused, and those of which nobody knows."""
        last = [upload["id"] for upload in loaded if upload["state"] == "completed"][-1:]
        return {
            upload["upload_id"]
            for upload in loaded
            if upload["id"] in last
            or upload["id"] in self.round.retried
            or upload["row_user_id"] in self.round.kept_out
            or may_be_there(upload)
        }

    def _upserted(self, table: str, uploads: list[dict[str, Any]], found: dict[tuple[str, str], Counter[Row]]) -> None:
        by_key: dict[int, list[dict[str, Any]]] = defaultdict(list)
        rows_of: dict[tuple[str, int], Row] = {}
        for upload in loaded(uploads):
            rows = self._source(upload)
            for row in rows:
                by_key[row[0]].append(upload)
                rows_of[upload["upload_id"], row[0]] = row
            wrong = int(upload["state"] == "completed" and upload["row_count"] != rows.total())
            self.verdict.say("unverified", wrong, f"{table}: {rows.total()} keys, recorded by {brief(upload)}")
        there: dict[int, list[tuple[str, Row]]] = defaultdict(list)
        for (_, upload_id), rows in found.items():
            for row in rows.elements():
                there[row[0]].append((upload_id, row))
        forgotten = {upload["upload_id"] for upload in self.round.forgotten}
        for key in by_key.keys() | there.keys():
            wanted, have = by_key.get(key, []), there.get(key, [])
            is_known = bool(wanted) or any(upload_id in forgotten for upload_id, _ in have)
            self.verdict.say("doubled", max(0, len(have) - is_known), f"{table}: key {key}: {have}")
            is_needed = bool(have) or any(upload["state"] == "completed" for upload in wanted)
            fits = any(
                upload_id in self._candidates(wanted) and rows_of.get((upload_id, key)) == row or upload_id in forgotten
                for upload_id, row in have
            )
            self.verdict.say("lost", int(bool(wanted) and is_needed and not fits), f"{table}: key {key}: {have}, wanted {wanted[-1:]}")

    def _replaced(self, table: str, uploads: list[dict[str, Any]], found: dict[tuple[str, str], Counter[Row]]) -> None:
        completed = [upload for upload in uploads if upload["state"] == "completed"]
        by_id = {upload["upload_id"]: upload for upload in loaded(uploads)}
        candidates = self._candidates(loaded(uploads))
        for upload in completed:
            wrong = int(upload["row_count"] != self._source(upload).total())
            self.verdict.say("unverified", wrong, f"{table}: recorded by {brief(upload)}")
        there = {upload_id: rows for (_, upload_id), rows in found.items() if rows}
        forgotten = {upload["upload_id"]: upload for upload in self.round.forgotten if upload["target"] == table}
        if not there:
            empty = not completed or bool(forgotten) or any(not self._source(by_id[upload]) for upload in candidates)
            self.verdict.say("lost", int(not empty), f"{table} is empty, wanted {brief(completed[-1]) if completed else ''}")
            return
        for upload_id, rows in there.items():
            if upload_id in candidates and len(there) == 1:
                self.verdict.compare(self._source(by_id[upload_id]), rows, f"{table}, replaced by {upload_id}")
            elif upload_id in forgotten and len(there) == 1:
                self._is_whole(table, forgotten[upload_id], rows)
            else:
                of = [brief(upload) for upload in uploads]
                self.verdict.say("doubled", rows.total(), f"{table} still has rows of {upload_id}; its uploads are {of}")


def brief(upload: dict[str, Any]) -> dict[str, Any]:
    """An upload, for a message."""
    return {name: value for name, value in upload.items() if value is not None and name != "query"}


def loaded(uploads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Uploads whose rows have come to their table, or may have."""
    return [upload for upload in uploads if upload["state"] == "completed" or may_be_there(upload)]


def key_of(upload: dict[str, Any]) -> tuple[str, str]:
    """By what the rows of an upload are found in its table."""
    return upload["execution_id"], upload["upload_id"]


def execution_of(upload: dict[str, Any]) -> tuple[Any, ...]:
    """What counts as the same execution: a query is one of its own."""
    return (upload["watch_id"], upload["execution_id"]) if upload["watch_id"] else (upload["id"],)


def last_of_each(uploads: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last upload of each execution."""
    return list({execution_of(upload): upload for upload in uploads}.values())


def whole(execution: str, rows: Counter[Row], recorded: int) -> Counter[Row]:
    """The rows of one version of an execution, as many as were recorded; which version, the rows say themselves."""
    versions = {row[1] for row in rows} or {0}
    version = versions.pop()
    return Counter((k, version, text(execution, version, k), amount) for k, amount in amounts(rows, recorded))


def amounts(rows: Counter[Row], recorded: int) -> Iterable[tuple[int, Any]]:
    """Each key there should be, with the amount that its row has."""
    by_key = {row[0]: row[3] for row in rows}
    return [(k, by_key.get(k)) for k in range(recorded)]
