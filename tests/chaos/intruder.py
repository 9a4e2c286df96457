"""A second worker of a database, started by mistake while the first is at work: it leaves, or, where code of the application has let go of
the first one's lock, takes its place and its uploads, and the first leaves."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from harness.bridge import TABLE

if TYPE_CHECKING:
    from chaos.world import World

# Of the lock that one worker per database holds (`src/worker/entry.rs`).
LOCK_CLASS = 0x5342
HELD = f"select pid from pg_locks where locktype = 'advisory' and objsubid = {LOCK_CLASS} and granted"
# Code that runs when the worker shows a status: told to, it lets go of all that the session has locked, and sees somebody else take it.
SCHEMA = f"""
    create table lets_go (is_wanted boolean);
    create function let_go() returns trigger language plpgsql set search_path from current as $$
    declare
        until timestamptz := clock_timestamp() + '300 ms';
    begin
        if exists (select from lets_go) then
            perform pg_advisory_unlock_all();
            while clock_timestamp() < until and not exists ({HELD}) loop
                perform pg_sleep(0.01);
            end loop;
        end if;
        return new;
    end $$;
"""
TRIGGER = f"create trigger let_go before update of snowflake_status on {TABLE} for each row execute function let_go()"
START = (
    "select snowflake_bridge.step_start_worker(pid) from pg_stat_activity where backend_type = 'snowflake_bridge launcher'"
)
# For a status to be shown, and for a process to start.
PATIENCE_SECONDS = 2.0
# What the first one says when it leaves for the second.
TAKEN = re.compile("another worker serves this database; this one ends")


def start(world: World, *, takes_over: bool) -> None:
    """Starts a worker beside the one there is."""
    if takes_over:
        world.attempt("insert into lets_go values (true)")
        _wait(world, is_held=False)
    world.attempt(START, as_admin=True)
    if takes_over:
        _wait(world, is_held=True)
        while world.attempt("delete from lets_go") is None:
            pass


def _wait(world: World, *, is_held: bool) -> None:
    """For the lock to be held, or not, which it need not come to."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and bool(world.attempt(HELD, as_admin=True)) != is_held:
        time.sleep(0.005)


def takeovers(world: World) -> int:
    """How often one has left for another."""
    return len(TAKEN.findall(world.bridge.cluster.log_text()))
