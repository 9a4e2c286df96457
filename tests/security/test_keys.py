"""The keys that secrets are encrypted with: changed for new ones while uploads run, and while configurations change."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from harness import wait
from harness.bridge import DATABASE, Bridge
from harness.standin import User

UPLOADS = 40


def keys(bridge: Bridge) -> dict[int, tuple[str, int]]:
    """State of each key, and how many secrets it encrypts."""
    rows = bridge.admin.execute("select * from snowflake_bridge.encryption_keys()").fetchall()
    return {row["key_id"]: (row["state"], row["secrets"]) for row in rows}


def in_background(work: Callable[[], None]) -> Callable[[], None]:
    """Starts `work`; what is returned waits for its end, and raises what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> None:
        thread.join()
        if failures:
            raise failures[0]

    return join


def goes_on(bridge: Bridge, execution_id: str) -> None:
    """Waits until an upload that was parked has completed after all."""
    wait.until(lambda: bridge.execution(execution_id)["snowflake_status"] == "completed", f"{execution_id} goes on")


def test_rotation_under_load(bridge: Bridge, user: User, capfd: pytest.CaptureFixture[str]) -> None:
    """Uploads run, configurations come and change their secrets, and two sessions rotate keys: nothing fails."""
    over = threading.Event()
    started = 0

    def uploads() -> None:
        nonlocal started
        for started in range(1, UPLOADS + 1):
            bridge.run(f"run-{started}", [{"a": started}])
        for number in range(1, UPLOADS + 1):
            bridge.completed(f"run-{number}", 120)

    def changes() -> None:
        with bridge.cluster.connect(DATABASE, "app") as connection:
            turn = 0
            while not over.is_set():
                name = f"other {turn % 5}"
                if turn < 5:
                    bridge.configure(user, connection=connection, name=name, verify=False)
                else:
                    bridge.call("update_config", connection=connection, name=name, password=f"p{turn}", verify=False)
                turn += 1

    def rotations() -> None:
        with bridge.cluster.connect(DATABASE) as connection, bridge.cluster.connect(DATABASE) as watcher:
            ended = "select count(*) as ended from snowflake_bridge.uploads where state = 'completed'"
            seen = -1
            while not over.is_set():
                [row] = watcher.execute(ended).fetchall()
                if row["ended"] > seen:
                    seen = row["ended"]
                    connection.execute("call snowflake_bridge.rotate_encryption_key()")

    background = [in_background(work) for work in (changes, rotations, rotations)]
    try:
        uploads()
    finally:
        over.set()
        for join in background:
            join()
    rotations_done = max(keys(bridge)) - 1
    assert rotations_done > 1
    # A secret that was encrypted while the last rotation ran may have missed it: the next one brings it along.
    bridge.admin.execute("call snowflake_bridge.rotate_encryption_key()")
    found = keys(bridge)
    assert {id for id, (_, secrets) in found.items() if secrets} == {max(found)}
    assert {state for state, _ in found.values()} == {"active", "decrypt"}
    states = bridge.admin.execute("select state, attempt_count, count(*) from snowflake_bridge.uploads group by 1, 2").fetchall()
    assert [tuple(row.values()) for row in states] == [("completed", 1, UPLOADS)]
    assert bridge.row_count(user) == UPLOADS
    with capfd.disabled():
        print(f"\nsecurity: suite=rotation keys={rotations_done} uploads={UPLOADS} failed=0")


def test_an_interrupted_rotation_goes_on(bridge: Bridge, user: User) -> None:
    """One that waits for somebody's open transaction is canceled: what it did stays done, and the next does the rest."""
    for number in range(6):
        bridge.configure(user, name=f"other {number}", verify=False)
    last = "select id from snowflake_bridge.snowflake_configurations order by id desc limit 1 for update"
    with bridge.cluster.connect(DATABASE) as rotator, bridge.cluster.connect(DATABASE) as blocker:
        blocker.execute("begin")
        blocker.execute(last)
        join = in_background(lambda: rotator.execute("call snowflake_bridge.rotate_encryption_key()"))
        waits = "select from pg_locks where pid = %(rotator)s and not granted and %(blocker)s = any(pg_blocking_pids(%(rotator)s))"
        pids = {"rotator": rotator.info.backend_pid, "blocker": blocker.info.backend_pid}
        wait.until(lambda: bridge.admin.execute(waits, pids).fetchall(), "the rotation waits for the row")
        bridge.admin.execute("select pg_cancel_backend(%(rotator)s)", pids)
        with pytest.raises(psycopg.errors.QueryCanceled):
            join()
        assert keys(bridge) == {1: ("decrypt", 1), 2: ("active", 6)}
        # Nobody but that one row's has to wait.
        bridge.run("run-1", [{"a": 1}])
        bridge.completed("run-1")
        blocker.execute("rollback")
        rotator.execute("call snowflake_bridge.rotate_encryption_key()")
    assert keys(bridge) == {1: ("decrypt", 0), 2: ("active", 7)}
    bridge.run("run-2", [{"a": 2}])
    bridge.completed("run-2")


def test_a_changed_secret_is_not_written_over(bridge: Bridge, user: User) -> None:
    """A rotation that waits for a row finds another secret in it afterwards, and keeps that one."""
    with bridge.cluster.connect(DATABASE, "app") as changer:
        changer.execute("begin")
        bridge.call("update_config", connection=changer, password="another password", verify=False)
        join = in_background(lambda: bridge.admin.execute("call snowflake_bridge.rotate_encryption_key()"))
        with bridge.cluster.connect(DATABASE) as watcher:
            waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like 'call%'"
            wait.until(lambda: watcher.execute(waiting).fetchone(), "the rotation waits for the row")
        changer.execute("commit")
        join()
    assert keys(bridge) == {1: ("decrypt", 0), 2: ("active", 1)}
    answer = bridge.app.execute("select * from snowflake_bridge.test_connection()").fetchone()
    assert answer is not None and not answer["success"], "the password in use is still the old one"


def test_a_secret_brought_again_needs_no_old_key(bridge: Bridge, user: User) -> None:
    """Another key under the number of the right one: uploads wait, and go on once the secret was brought again."""
    path = bridge.cluster.keys / "keyring"
    path.write_text("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:active\n")
    bridge.run("run-1", [{"a": 1}])
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert "key 1 in the key file is not the key 1" in message and "update_config" in message
    assert bridge.upload("run-1")["state"] == "needs_credentials"
    bridge.call("update_config", password=user.password)
    goes_on(bridge, "run-1")
    assert bridge.row_count(user) == 1


@pytest.mark.parametrize("place", ["data directory", "tablespace"])
def test_keys_do_not_lie_where_backups_copy(bridge: Bridge, user: User, place: str) -> None:
    """Nor behind a link that leads there: whoever has the backup would have both."""
    directory = bridge.cluster.data if place == "data directory" else bridge.cluster.directory("tablespace")
    if place == "tablespace":
        bridge.admin.execute(f"create tablespace elsewhere location '{directory}'")
    path, inside = bridge.cluster.keys / "keyring", directory / "keyring"
    path.rename(inside)
    path.symlink_to(inside)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="lies in a directory that backups copy"):
        bridge.call("update_config", warehouse="W", verify=False)
    path.unlink()
    inside.rename(path)
    bridge.call("update_config", warehouse="W", verify=False)


def test_uploads_go_on_when_the_right_key_is_back(bridge: Bridge, user: User) -> None:
    """As the hint says: the key file restored, then one successful test."""
    path = bridge.cluster.keys / "keyring"
    right = path.read_text()
    path.write_text("2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:active\n")
    bridge.run("run-1", [{"a": 1}])
    assert "has no key 1" in bridge.failed("run-1")["snowflake_error_message"]
    path.write_text(right)
    answer = bridge.app.execute("select * from snowflake_bridge.test_connection()").fetchone()
    assert answer is not None and answer["success"], answer
    goes_on(bridge, "run-1")


def test_keys_from_a_command(bridge: Bridge, user: User) -> None:
    """The worker asks once, and again for a secret whose key it has not seen; nobody but the command's owner makes keys."""
    path, runs = bridge.cluster.keys / "keyring", bridge.cluster.keys / "runs"
    bridge.admin.execute(f"alter system set snowflake_bridge.key_command = 'echo >> {runs}; cat {path}'")
    bridge.admin.execute("select pg_reload_conf()")
    wait.until(
        lambda: bridge.admin.execute("show snowflake_bridge.key_command").fetchone()["snowflake_bridge.key_command"],
        "the setting arrives",
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="both"):
        keys(bridge)
    bridge.cluster.settings["snowflake_bridge.key_file"] = ""
    bridge.cluster.restart()
    bridge.connect()
    for number in range(5):
        bridge.run(f"run-{number}", [{"a": number}])
        bridge.completed(f"run-{number}")
    assert len(runs.read_text()) == 1, "the worker keeps what the command printed"
    for statement in ("call snowflake_bridge.rotate_encryption_key()", "select snowflake_bridge.generate_key_file()"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="key_command"):
            bridge.admin.execute(statement)
    line = "2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:active\n"
    path.write_text(path.read_text().replace("active\n", "decrypt\n") + line)
    bridge.admin.execute("call snowflake_bridge.rotate_encryption_key()")
    assert keys(bridge) == {1: ("decrypt", 0), 2: ("active", 1)}
    bridge.run("after", [{"a": 1}])
    bridge.completed("after")
    # A command that hangs holds nobody up for longer than they want to wait.
    bridge.admin.execute("alter system set snowflake_bridge.key_command = 'sleep 600'")
    bridge.admin.execute("select pg_reload_conf()")
    with bridge.cluster.connect(DATABASE) as impatient:
        impatient.execute("set statement_timeout = '500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            impatient.execute("select * from snowflake_bridge.encryption_keys()")
