"""The object stores of all clouds, and which of them an account's stages lie in."""

from __future__ import annotations

import itertools
import posixpath
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from standin import azure_store, gcs_store, objectstore
from standin.audit import Audit
from standin.azure_store import AzureStore
from standin.certificates import Tls
from standin.faults import Faults
from standin.gcs_store import GcsStore
from standin.grants import Grants
from standin.objectstore import ObjectStore

if TYPE_CHECKING:
    from standin.accounts import Account
    from standin.cloud import Cloud
    from standin.sessions import Session
    from standin.stage_objects import StageObjects
    from standin.stages import Location


class Stores:
    def __init__(self, audit: Audit, faults: Faults, tls: Tls | None) -> None:
        self.grants = Grants()
        self.s3 = ObjectStore(audit, faults, self.grants, tls)
        self.gcs = GcsStore(audit, faults, self.grants, tls, self.s3.make_bucket("gcs", gcs_store.BUCKET))
        self._azure: AzureStore | None = None
        self._lock = threading.Lock()
        self._start_azure = partial(AzureStore, audit, faults, self.grants, tls)
        self._sas_count = itertools.count(1)

    def azure(self) -> AzureStore:
        """Started when it is first needed: most tests live in another cloud, and it is a process of its own."""
        with self._lock:
            if self._azure is None:
                self._azure = self._start_azure()
            return self._azure

    def prepare(self, account: Account) -> None:
        """Start what the account's cloud needs."""
        if account.cloud.name == "azure":
            self.azure()

    def objects(self, account: Account) -> StageObjects:
        if account.cloud.name == "azure":
            return self.azure().objects
        return self.gcs.objects if account.cloud.name.startswith("gcs") else self.s3.objects

    def ready(self) -> dict[str, Any]:
        """What `ready.json` says of the stores, and the answer that adds accounts."""
        return {
            "s3_endpoint": self.s3.endpoint,
            "s3_port": self.s3.port,
            "azure_port": self._azure.port if self._azure else None,
            "gcs_port": self.gcs.port,
        }

    def stage_info(self, session: Session, location: Location, file: str) -> dict[str, Any]:
        """The `stageInfo` of a PUT answer, with credentials for this one directory."""
        cloud, prefix = session.account.cloud, location.directory()
        if cloud.name == "gcs_presigned" or (session.official and cloud.official_clients == "signed_url"):
            info = gcs_store.presigned_info(self.gcs, self.objects(session.account), prefix, posixpath.basename(file))
        elif cloud.name == "gcs":
            info = gcs_store.stage_info(self.gcs, prefix, cloud.virtual_url)
        elif cloud.name == "azure":
            info = azure_store.stage_info(self.azure(), prefix, self._question_mark(cloud), session.official)
        else:
            info = objectstore.stage_info(self.s3, prefix, session.official)
        return {
            **info,
            "path": location.path,
            "isClientSideEncrypted": location.stage.encrypted,
            "ciphers": "AES_CBC" if location.stage.encrypted else None,
            **cloud.stage_info,
        }

    def _question_mark(self, cloud: Cloud) -> bool:
        if cloud.sas_question_mark == "alternate":
            return next(self._sas_count) % 2 == 1
        return cloud.sas_question_mark == "always"
