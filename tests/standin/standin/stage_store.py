"""Internal stages: where their files live, how they are encrypted, and which keys were handed out for them."""

from __future__ import annotations

import base64
import secrets
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from standin.names import TableName

SMK_ID_FLOOR = 2**53  # ids beyond a double's exact range, so that a client that reads them as one is found out


@dataclass(frozen=True)
class Stage:
    """One stage. `folder` is its place in the bucket, `label` what LIST and COPY put before file names."""

    folder: str
    label: str = ""
    encrypted: bool = True
    name: TableName | None = None
    session_id: int | None = None
    comment: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Material:
    """Encryption material of one PUT, as the answer carries it."""

    master_key: str
    query_id: str
    smk_id: int

    def answer(self) -> dict[str, object]:
        return {"queryStageMasterKey": self.master_key, "queryId": self.query_id, "smkId": self.smk_id}


class StageRegistry:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: dict[tuple[TableName, int | None], Stage] = {}
        self._folders: dict[object, str] = {}
        self._materials: dict[tuple[str, str], Material] = {}
        self._next_smk = SMK_ID_FLOOR + 1

    def user_stage(self, user: str) -> Stage:
        return Stage(self._folder(("user", user)))

    def table_stage(self, table: TableName) -> Stage:
        return Stage(self._folder(("table", table)))

    def named(self, name: TableName, session_id: int) -> Stage | None:
        """A temporary stage hides a permanent one of the same name, in its own session."""
        with self._lock:
            return self._named.get((name, session_id)) or self._named.get((name, None))

    def visible(self, session_id: int) -> list[Stage]:
        with self._lock:
            return [stage for (_, owner), stage in self._named.items() if owner in (None, session_id)]

    def create(self, name: TableName, session_id: int | None, encrypted: bool, comment: str) -> Stage:
        stage = Stage(f"stages/{uuid.uuid4()}/", f"{name.name.lower()}/", encrypted, name, session_id, comment)
        with self._lock:
            self._named[(name, session_id)] = stage
        return stage

    def drop(self, stage: Stage) -> None:
        with self._lock:
            for key in [key for key, value in self._named.items() if value is stage]:
                del self._named[key]

    def of_session(self, session_id: int) -> list[Stage]:
        with self._lock:
            return [stage for (_, owner), stage in self._named.items() if owner == session_id]

    def issue(self, query_id: str, key_bits: int) -> Material:
        """A fresh master key for one PUT statement."""
        with self._lock:
            smk_id = self._next_smk
            self._next_smk += 2
            key = base64.b64encode(secrets.token_bytes(key_bits // 8)).decode()
            material = Material(key, query_id, smk_id)
            self._materials[(query_id, str(smk_id))] = material
            return material

    def material(self, query_id: str, smk_id: str) -> Material | None:
        with self._lock:
            return self._materials.get((query_id, smk_id))

    def rename_table(self, old: TableName, new: TableName) -> None:
        with self._lock:
            if ("table", old) in self._folders:
                self._folders[("table", new)] = self._folders.pop(("table", old))

    def forget_table(self, table: TableName) -> None:
        """A table that is created again under the name starts with an empty stage."""
        with self._lock:
            self._folders.pop(("table", table), None)

    def _folder(self, owner: object) -> str:
        with self._lock:
            return self._folders.setdefault(owner, f"stages/{uuid.uuid4()}/")
