"""Why an upload may have failed while trouble was made: messages, whole, of what the trouble does. Anything else is a finding."""

from __future__ import annotations

import re

HOST = r"[\w.:-]+"
# What the server says beside our own words.
SAID = r"(?:: .+)?"
MESSAGES = [
    # Fail points, and processes that died at them.
    r"(?:cannot record the upload's state: )?fail point [\w-]+",
    r"the worker process crashed during this upload",
    r"the process that read the result ended before it was done",
    r"the network thread panicked; the server log of this process has the place",
    r"the renewal of a session panicked",
    # Short COPYs.
    r"COPY loaded \d+ rows of \d+ files, but \d+ rows of \d+ files were staged(?:, or others by file)?; nothing was committed",
    # The network.
    rf"no connection to {HOST} in time",
    rf"cannot connect to {HOST}",
    rf"the connection to {HOST} was lost",
    rf"no answer from {HOST} in time",
    rf"nothing moved on the connection to {HOST}",
    rf"{HOST} sent a damaged answer \(\w+ error\)",
    r"Snowflake's answer has an unexpected shape \(\w+ error at column \d+\)",
    # Statuses of Snowflake's and of the storage, whose credentials expire as well.
    rf"{HOST} asks to slow down \(HTTP 429\)",
    rf"Snowflake is not available at {HOST} \(HTTP 5\d\d\)",
    r"the stage's storage refused a file \(HTTP (?:400, ExpiredToken|403, \w+|429|5\d\d)(?:, \w+)?\)",
    r"the stage's storage did not take a file \(\w+\)",
    # Sessions that were ended, and transactions of which others waited too long for the end.
    rf"the Snowflake session has (?:ended|expired){SAID}",
    rf"the table is locked by too many others{SAID}",
    r"somebody aborted transaction \d+ while it was loading; nothing was committed",
    r"Snowflake does not tell what became of transaction \d+",
    r"Snowflake reports no transaction after BEGIN",
]
# What was being done, where that is said first.
DOING = r"(?:cannot create a temporary table beside table [\w.]+: )?"
# What is added where nobody knows what became of the rows.
UNKNOWN = r"; its rows may be in (?:table [\w.]+|Snowflake)"
INJECTED = re.compile(f"{DOING}(?:{'|'.join(MESSAGES)})(?:{UNKNOWN})?")
# The rows of a query, which lay on a server that was lost.
LOST_WITH_SERVER = re.compile("the rows of this upload are not in the spool directory any more" + UNKNOWN)


def is_injected(message: str) -> bool:
    """Whether trouble that was made says so."""
    return INJECTED.fullmatch(message) is not None


def is_lost_with_server(message: str) -> bool:
    """Whether the rows that a caller has left are said to be gone, and that they may have been loaded."""
    return LOST_WITH_SERVER.fullmatch(message) is not None
