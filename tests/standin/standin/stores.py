"""The object stores of all clouds, and which of them an account's stages lie in."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from standin import gcs_store, objectstore
from standin.audit import Audit
from standin.certificates import Tls
from standin.faults import Faults
from standin.gcs_store import GcsStore
from standin.grants import Grants
from standin.objectstore import ObjectStore

if TYPE_CHECKING:
    from standin.accounts import Account
    from standin.sessions import Session
    from standin.stage_objects import StageObjects
    from standin.stages import Location


class Stores:
    def __init__(self, audit: Audit, faults: Faults, tls: Tls | None) -> None:
        self.grants = Grants()
        self.s3 = ObjectStore(audit, faults, self.grants, tls)
        self.gcs = GcsStore(audit, faults, self.grants, tls, self.s3.make_bucket("gcs", gcs_store.BUCKET))

    def objects(self, account: Account) -> StageObjects:
        return self.gcs.objects if account.cloud.name.startswith("gcs") else self.s3.objects

    def ready(self) -> dict[str, Any]:
        """What `ready.json` says of the stores."""
        return {"s3_endpoint": self.s3.endpoint, "s3_port": self.s3.port, "gcs_port": self.gcs.port}

    def stage_info(self, session: Session, location: Location, file: str) -> dict[str, Any]:
        """The `stageInfo` of a PUT answer, with credentials for this one directory."""
        cloud, prefix = session.account.cloud, location.directory()
        if cloud.name == "gcs_presigned" or session.official:
            info = gcs_store.presigned_info(self.gcs, self.objects(session.account), prefix, posixpath.basename(file))
        elif cloud.name == "gcs":
            info = gcs_store.stage_info(self.gcs, prefix, cloud.virtual_url)
        else:
            info = objectstore.stage_info(self.s3, prefix)
        return {
            **info,
            "path": location.path,
            "isClientSideEncrypted": location.stage.encrypted,
            "ciphers": "AES_CBC" if location.stage.encrypted else None,
            **cloud.stage_info,
        }
