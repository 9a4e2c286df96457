"""The Azure store: Azurite, and before it what it does not know, which is where a signature leads and when it was ended."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import urllib3
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from standin import azurite
from standin.audit import Audit
from standin.azure_container import Container
from standin.certificates import Tls
from standin.faults import Faults
from standin.front import Answer, Request, xml_error
from standin.grants import LIFE_SECONDS, Grants
from standin.store_front import listen

REGION = "westus2"
STORAGE_ACCOUNT = "sfcstandin"
CONTAINER = "stages"
HOST = "blob.localhost"
AZURITE_SECONDS = 60.0
# Azurite ends a connection that idled for five seconds, perhaps just when it is used again.
_RETRY = urllib3.Retry(1, redirect=False, status=False)
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_UNAUTHENTICATED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including "
    "the signature."
)
_UNAUTHORISED = "This request is not authorized to perform this operation using this permission."


class AzureStore:
    def __init__(self, audit: Audit, faults: Faults, grants: Grants, tls: Tls | None) -> None:
        self._grants = grants
        self._lock = threading.Lock()
        self._last_expiry = 0
        self._key = base64.b64encode(secrets.token_bytes(64)).decode()
        port = azurite.start(STORAGE_ACCOUNT, self._key)
        self._azurite = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=16, timeout=AZURITE_SECONDS)
        self.objects = Container(f"http://127.0.0.1:{port}/{STORAGE_ACCOUNT}", CONTAINER, self._key)
        listener = listen("azure", self, audit, faults, tls)
        listener.start()
        self.port = listener.port
        self.endpoint = f"{HOST}:{self.port}"

    def sas(self, prefix: str, readable: bool) -> str:
        """A service SAS of the container that lets its holder create and write, below the prefix only.

        Some drivers look first whether the file is there, for which they must be allowed to read.
        """
        with self._lock:
            # A SAS is told by its signature, so no two may be alike; their expiry is what makes the difference.
            expiry = self._last_expiry = max(self._last_expiry + 1, int(time.time()) + LIFE_SECONDS)
        sas = generate_container_sas(
            STORAGE_ACCOUNT,
            CONTAINER,
            account_key=self._key,
            permission=ContainerSasPermissions(create=True, write=True, read=readable),
            expiry=datetime.fromtimestamp(expiry, UTC),
        )
        self._grants.issue(dict(parse_qsl(sas))["sig"], prefix, expiry)
        return sas

    def is_own(self, request: Request) -> bool:
        return False

    def answer(self, request: Request) -> Answer:
        grant = self._grants.find(request.query.get("sig"))
        if grant is not None:
            if not self._grants.spend(grant):
                return _refused("AuthenticationFailed", _UNAUTHENTICATED)
            if not request.path.startswith(f"/{CONTAINER}/{grant.prefix}"):
                return _refused("AuthorizationPermissionMismatch", _UNAUTHORISED)
        return self._pass_on(request)

    def _pass_on(self, request: Request) -> Answer:
        """Azurite's own answer. It checks the signature, the permissions and everything else."""
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        answer = self._azurite.urlopen(
            request.method,
            request.target,
            request.body,
            headers,
            retries=_RETRY,
            redirect=False,
            decode_content=False,
        )
        if answer.headers.get("x-ms-error-code") == "AuthorizationFailure":
            # Azurite's name for a signature that does not fit. Azure calls it as it calls one that is over.
            return _refused("AuthenticationFailed", _UNAUTHENTICATED)
        kept = [
            (name, value)
            for name, value in answer.headers.items()
            if name.lower() not in _HOP_BY_HOP or (name.lower() == "content-length" and request.method == "HEAD")
        ]
        return Answer(answer.status, answer.data, headers=kept, reason=answer.reason)


def _refused(code: str, message: str) -> Answer:
    answer = xml_error(403, code, message)
    answer.headers = [("x-ms-error-code", code), *answer.headers]
    answer.reason = message
    return answer


def stage_info(store: AzureStore, prefix: str, question_mark: bool, readable: bool) -> dict[str, Any]:
    """What a PUT answer says of Azure. Drivers find the SAS with and without a question mark before it."""
    return {
        "locationType": "AZURE",
        "location": f"{CONTAINER}/{prefix}",
        "region": REGION,
        "storageAccount": STORAGE_ACCOUNT,
        "creds": {"AZURE_SAS_TOKEN": ("?" if question_mark else "") + store.sas(prefix, readable)},
        "presignedUrl": None,
        "endPoint": store.endpoint,
        "useS3RegionalUrl": False,
        "useRegionalUrl": False,
        "useVirtualUrl": False,
    }
