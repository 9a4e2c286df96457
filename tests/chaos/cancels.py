"""What `cancel_upload` has answered, held against what became of each upload: nothing that is canceled was asked for by nobody, and what
was asked for comes to pass unless the rows were being committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

# The answer, and how the upload stands after it in the same transaction.
SCHEMA = """
    create function cancel_and_look(upload bigint, out answer boolean, out state text, out has_files boolean) language plpgsql as $$
    begin
        answer := snowflake_bridge.cancel_upload(upload);
        select u.state, u.state = 'failed' and u.watch_id is null and u.manifest is not null into state, has_files
          from snowflake_bridge.uploads u where u.id = upload;
    end $$;
"""
ENDED = ("completed", "failed", "canceled")
# A worker that is at an upload looks several times a second, and may be made to stand still for half of one.
NOTICED = timedelta(seconds=5)
ON_REQUEST = "canceled on request"
MAY_BE_THERE = "; its rows may be in "
# In the hint of any that has ended while nobody knew what became of its rows.
FIND_ROWS = "Rows of this upload have its upload_id in column UPLOAD_ID."
OVERTAKEN = "a newer upload of the same execution has begun"
UNWATCHED = "the relation is not watched any more"
# Whoever ends a session in Snowflake cancels its statement.
IN_SNOWFLAKE = "the statement was canceled in Snowflake: SQL execution canceled"


@dataclass(frozen=True)
class Cancel:
    """One answer, and how the upload stood then: a failed one may still have its caller's files. By `known_at` it was committed."""

    upload: int
    answer: bool
    state: str
    has_files: bool
    known_at: datetime


def may_be_there(upload: dict[str, Any]) -> bool:
    """Whether an upload has ended so that nobody knows what became of its rows, and says so."""
    return upload["state"] in ("canceled", "failed") and FIND_ROWS in (upload["error_hint"] or "")


def broken_promise(cancel: Cancel, upload: dict[str, Any], began: Callable[[], datetime | None]) -> str | None:
    """What is wrong with an answer, now that the upload has ended. `began` tells when the transaction that loaded it did."""
    state = upload["state"]
    if not cancel.answer:
        if cancel.state not in ENDED or cancel.has_files:
            return "there was something to end"
        return None if state == cancel.state else "it had ended, and has gone on"
    if cancel.state == "queued":
        return "it should have been canceled at once"
    if cancel.state == "canceled":
        return None if state == "canceled" else "it was canceled, and has gone on"
    if cancel.state in ENDED or state in ENDED and state != "completed":
        return None
    if state != "completed":
        return "it still waits"
    loaded = began()
    is_late = loaded is not None and loaded > cancel.known_at + NOTICED
    return f"its load began at {loaded}, long after that" if is_late else None


def is_meant(upload: dict[str, Any], reasons: dict[str, bool]) -> bool:
    """Whether an upload is canceled for one of these reasons that came to pass, by their messages."""
    message, _, _ = str(upload["error_message"]).partition(MAY_BE_THERE)
    return reasons.get(message, False)
