"""What the object stores of all clouds have in common towards their clients: a front and a listener."""

from __future__ import annotations

from typing import Protocol

from standin.audit import Audit
from standin.certificates import Tls
from standin.faults import Faults
from standin.front import Answer, Front, Record, Request, bound
from standin.listener import Listener


class Store(Protocol):
    def answer(self, request: Request) -> Answer: ...

    def is_own(self, request: Request) -> bool:
        """Does the request come from this process?"""


class StoreFront(Front):
    store: Store

    def exempt(self, request: Request) -> bool:
        return self.store.is_own(request)

    def respond(self, request: Request, record: Record) -> Answer:
        return self.store.answer(request)


def listen(name: str, store: Store, audit: Audit, faults: Faults, tls: Tls | None) -> Listener:
    """A listener for the store, on a free port. It serves when it is started."""
    front = bound(StoreFront, audit=audit, faults=faults, store=store)
    return Listener(name, front, context=tls.server_context() if tls else None)
