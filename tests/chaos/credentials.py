"""Credentials that Snowflake refuses for a while. Whatever needs them waits, and they are not tried again, until somebody has saved the
right ones; then it goes on by itself."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace

from chaos.jobs import Round
from chaos.world import Tenant, World
from harness import keys, wait

# Snowflake's words for a wrong password and for a wrong key.
REFUSED = ("390100", "390144")
# Snowflake locks a user out after so many wrong passwords in a row.
LOCKED_AFTER = 5
# So often, after each job, somebody notices that uploads wait for them.
NOTICE = 0.3


class Credentials:
    """Has somebody refused, one at a time. `events` counts what else goes wrong: a login whose answer was lost is tried again."""

    def __init__(self, world: World, rng: random.Random, events: Callable[[], int]) -> None:
        self.world = world
        self.rng = rng
        self.times = 0
        # Uploads that have waited.
        self.parked = 0
        self.findings: list[str] = []
        self.refused: Tenant | None = None
        # The credentials that are good instead, if they are good for another secret than the configuration has.
        self._renewed: Tenant | None = None
        self._events = events
        self._mark = self._before = 0
        self._round = Round(0)

    def refuse(self, round: Round) -> None:
        """An account has other credentials for somebody, or somebody saves wrong ones. Whoever is logged in has to do so again."""
        if self.refused:
            return
        tenant = self.refused = self.rng.choice(self.world.tenants)
        self._round = round
        round.kept_out.add(tenant.user_id)
        self._mark, self._before = self.world.standin.audit_mark(), self._events()
        self.times += 1
        if self.rng.random() < 0.5:
            self._renewed = other(tenant)
            self._renewed.let_in()
        else:
            self._renewed = None
            self.world.save(tenant, other(tenant).secret(), verify=False)
        for session in self.world.standin.admin("GET", "sessions")["sessions"]:
            if (session["account"], session["user"]) == (tenant.account.name.upper(), tenant.user.name):
                with contextlib.suppress(RuntimeError):  # it has just ended by itself
                    self.world.standin.admin("POST", "sessions", {"id": session["id"], "expire": "master"})

    def notice(self) -> None:
        """Asked after every job: somebody may see what has happened."""
        if self.refused and self._waiting() and self.rng.random() < NOTICE:
            self._mend(verify=self.rng.random() < 0.5)

    def mend(self) -> None:
        """Nobody's credentials are refused any more."""
        wait.until(lambda: not self.refused or self._mend(verify=False), "the right credentials are saved", 60)

    def _mend(self, *, verify: bool) -> bool:
        """The account takes the old ones again, or the configuration gets the new ones. What waits is due when those are saved."""
        tenant = self.refused
        assert tenant is not None
        if self._renewed and self.rng.random() < 0.5:
            tenant.let_in()
            self._renewed = None
        waiting, logins, allowed = self._waiting(), self._logins(tenant), self._allowed()
        self.come_late(self._round)
        right = self._renewed or tenant
        if not self.world.save(tenant, right.secret(), verify=verify):
            return False
        if logins > allowed:
            self.findings.append(f"{tenant.user_id}'s credentials, refused, were tried {logins} times, which locks a user out")
        self.parked += waiting
        tenant.user, tenant.key = right.user, right.key
        self.refused = self._renewed = None
        return True

    def come_late(self, round: Round) -> None:
        """What waits for credentials keeps nobody else waiting, and comes to its table after what was queued later."""
        parked = self.world.ask("select id from snowflake_bridge.uploads where state = 'needs_credentials'")
        round.retried |= {row["id"] for row in parked}

    def _waiting(self) -> int:
        """Uploads that wait for credentials, unless a newer one of their execution does so in their place."""
        [row] = self.world.ask(
            "select count(*) as n from snowflake_bridge.uploads u where state = 'needs_credentials' and not exists ("
            "select from snowflake_bridge.uploads n where n.watch_id = u.watch_id and n.execution_id = u.execution_id and n.id > u.id)"
        )
        return int(row["n"])

    def _logins(self, tenant: Tenant) -> int:
        """How often the credentials were refused."""
        return sum(
            record["kind"] == "login"
            and record["code"] in REFUSED
            and (record["account"], record["user"]) == (tenant.account.name.upper(), tenant.user.name)
            for record in self.world.standin.audit(self._mark)
        )

    def _allowed(self) -> int:
        """As often as does not lock a user out, and for each login of which something else has kept the worker from learning or recording
        the end."""
        return LOCKED_AFTER - 1 + self._events() - self._before


def other(tenant: Tenant) -> Tenant:
    """The same user with another secret."""
    if tenant.key:
        return replace(tenant, key=keys.generate())
    return replace(tenant, user=replace(tenant.user, password=tenant.user.password[::-1]))
