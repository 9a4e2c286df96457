"""Statements about stages: PUT, LIST, REMOVE, CREATE STAGE, DROP STAGE, and what a location like `@~/a/b` means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from standin import results
from standin.errors import missing_stage, object_exists, syntax_error, unsupported
from standin.names import TableName, split_qualified, unescape
from standin.privileges import require_on_schema
from standin.resolve import complete, existing_table, require_schema
from standin.results import Result
from standin.stage_store import Stage

if TYPE_CHECKING:
    from standin.sessions import Session
    from standin.stage_objects import Listed
    from standin.stores import Stores

_QUOTED = r"'(?:[^'\\]|\\.|'')*'"
_PUT = re.compile(
    rf"PUT\s+({_QUOTED}|\S+)\s+({_QUOTED}|@(?:\"(?:[^\"]|\"\")+\"|\S)+)\s*(.*)\Z", re.IGNORECASE | re.DOTALL
)
_OPTION = re.compile(r"(\w+)\s*=\s*('[^']*'|\w+)")
_LOCATION_STATEMENT = re.compile(
    rf"(?:LIST|LS|REMOVE|RM)\s+({_QUOTED}|@(?:\"(?:[^\"]|\"\")+\"|\S)+)\s*(?:PATTERN\s*=\s*({_QUOTED}))?\s*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_CREATE = re.compile(
    r"CREATE\s+(?P<replace>OR\s+REPLACE\s+)?(?P<temporary>(?:SCOPED\s+)?TEMP(?:ORARY)?\s+)?STAGE\s+"
    r"(?P<exists>IF\s+NOT\s+EXISTS\s+)?"
    r"(?P<rest>.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
_DROP = re.compile(r"DROP\s+STAGE\s+(?P<exists>IF\s+EXISTS\s+)?(?P<rest>.*)\Z", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Location:
    stage: Stage
    path: str

    def prefix(self) -> str:
        return self.stage.folder + self.path

    def directory(self) -> str:
        """For PUT the path is a directory, with or without a slash at its end."""
        return self.prefix() if not self.path or self.path.endswith("/") else self.prefix() + "/"


def unquote(text: str) -> str:
    return unescape(text[1:-1]) if text.startswith("'") else text


def locate(session: Session, text: str) -> Location:
    """The stage and path that a location names: `@~/p`, `@%table/p`, `@db.schema.stage/p`."""
    if not text.startswith("@"):
        raise syntax_error(f"syntax error: '{text[:40]}' is not a stage location.")
    body = text[1:]
    if body == "~" or body.startswith("~/"):
        return Location(session.engine.stages.user_stage(session.user.name), body[2:])
    if body.startswith("%"):
        parts, rest = split_qualified(body[1:])
        return _table_location(session, parts, rest)
    match = re.match(r'((?:"(?:[^"]|"")+"|\w+)\.(?:(?:"(?:[^"]|"")+"|\w+)\.)?)%', body)
    if match:
        leading, _ = split_qualified(match[1].rstrip("."))
        table, rest = split_qualified(body[match.end() :])
        return _table_location(session, [*leading, *table], rest)
    parts, rest = split_qualified(body)
    name = complete(session, parts)
    stage = session.engine.stages.named(name, session.id)
    if stage is None:
        require_schema(session, name)
        raise missing_stage(name.dotted())
    return Location(stage, rest.lstrip("/"))


def _table_location(session: Session, parts: list[str], rest: str) -> Location:
    stored = existing_table(session, complete(session, parts))
    return Location(session.engine.stages.table_stage(stored), rest.lstrip("/"))


def put(session: Session, sql: str, query_id: str, stores: Stores) -> Result:
    """The server reads no file: it answers where to upload, with which credentials and which key."""
    match = _PUT.match(sql.strip().rstrip(";"))
    if not match:
        raise syntax_error("syntax error in PUT.")
    source = unquote(match[1])
    if not source.lower().startswith("file://"):
        raise syntax_error(f"syntax error: '{source}' is not a file URL.")
    path = source[len("file://") :]
    options = {name.upper(): unquote(value) for name, value in _OPTION.findall(match[3])}
    location = locate(session, unquote(match[2]))
    info = stores.stage_info(session, location, path)
    material = None
    if location.stage.encrypted:
        material = session.engine.stages.issue(query_id, session.account.cloud.key_bits).answer()
        if session.client == "PythonConnector":
            # Its version 5.2 reads the id as text only, 4.x as either. The Go driver, and recordings of answers, want an integer.
            material["smkId"] = str(material["smkId"])
    answer: dict[str, Any] = {
        "uploadInfo": info,
        "src_locations": [path],
        "parallel": int(options.get("PARALLEL", "4")),
        "threshold": session.account.cloud.threshold,
        "autoCompress": options.get("AUTO_COMPRESS", "TRUE").upper() == "TRUE",
        "overwrite": options.get("OVERWRITE", "FALSE").upper() == "TRUE",
        "sourceCompression": options.get("SOURCE_COMPRESSION", "AUTO_DETECT").lower(),
        "clientShowEncryptionParameter": True,
        "queryId": query_id,
        "encryptionMaterial": material,
        "stageInfo": info,
        "command": "UPLOAD",
        "kind": None,
        "operation": "Node",
    }
    return Result([], results.status("").table, results.PUT, put_answer=answer)


def list_files(session: Session, sql: str, stores: Stores) -> Result:
    columns = [results.text("name"), results.number("size"), results.text("md5"), results.text("last_modified")]
    rows = [
        (
            name,
            item.size,
            item.etag,
            item.modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        )
        for name, item in _matching(session, sql, stores)
    ]
    return results.from_rows(columns, rows, results.SESSION)


def remove(session: Session, sql: str, stores: Stores) -> Result:
    found = _matching(session, sql, stores)
    stores.objects(session.account).remove(item.key for _, item in found)
    columns = [results.text("name"), results.text("result")]
    return results.from_rows(columns, [(name, "removed") for name, _ in found], results.REMOVE)


def _matching(session: Session, sql: str, stores: Stores) -> list[tuple[str, Listed]]:
    match = _LOCATION_STATEMENT.match(sql.strip())
    if not match:
        raise syntax_error("syntax error in LIST or REMOVE.")
    location = locate(session, unquote(match[1]))
    pattern = re.compile(unquote(match[2])) if match[2] else None
    found = []
    for item in stores.objects(session.account).list(location.prefix()):
        name = location.stage.label + item.key.removeprefix(location.stage.folder)
        if pattern is None or pattern.fullmatch(name):
            found.append((name, item))
    return found


def create(session: Session, sql: str) -> Result:
    match = _CREATE.match(sql.strip().rstrip(";"))
    if not match:
        raise syntax_error("syntax error in CREATE STAGE.")
    parts, rest = split_qualified(match["rest"].strip())
    if re.search(r"\bURL\s*=", rest, re.IGNORECASE):
        raise unsupported("external stages")
    encryption = re.search(r"ENCRYPTION\s*=\s*\(\s*TYPE\s*=\s*'?(\w+)'?", rest, re.IGNORECASE)
    kind = encryption[1].upper() if encryption else "SNOWFLAKE_FULL"
    if kind not in {"SNOWFLAKE_FULL", "SNOWFLAKE_SSE"}:
        raise syntax_error(f"invalid encryption type '{kind}'.")
    comment = re.search(rf"COMMENT\s*=\s*({_QUOTED})", rest, re.IGNORECASE)
    name = complete(session, parts)
    require_schema(session, name)
    require_on_schema(session, "CREATE STAGE", name)
    session.commit()
    stages = session.engine.stages
    old = stages.named(name, session.id)
    if old is not None and (old.session_id is not None) == bool(match["temporary"]):
        if match["exists"]:
            return results.status(f"{name.name} already exists, statement succeeded.")
        if not match["replace"]:
            raise object_exists(name.dotted())
        stages.drop(old)
    stages.create(
        name,
        session.id if match["temporary"] else None,
        kind == "SNOWFLAKE_FULL",
        unquote(comment[1]) if comment else "",
    )
    return results.status(f"Stage area {name.name} successfully created.")


def drop(session: Session, sql: str, stores: Stores) -> Result:
    match = _DROP.match(sql.strip().rstrip(";"))
    if not match:
        raise syntax_error("syntax error in DROP STAGE.")
    parts, _ = split_qualified(match["rest"].strip())
    name: TableName = complete(session, parts)
    session.commit()
    stage = session.engine.stages.named(name, session.id)
    if stage is None:
        if match["exists"]:
            return results.status(f"Drop statement executed successfully ({name.name} already dropped).")
        raise missing_stage(name.dotted())
    session.engine.stages.drop(stage)
    objects = stores.objects(session.account)
    objects.remove(item.key for item in objects.list(stage.folder))
    return results.status(f"{name.name} successfully dropped.")
