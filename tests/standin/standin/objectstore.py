"""The S3 store: moto, and before it a check of credentials, prefix, signature and body digest."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import replace
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from standin import signature, wsgi
from standin.audit import Audit
from standin.certificates import Tls
from standin.envelope import Form
from standin.faults import Faults
from standin.front import Answer, Request, xml_error
from standin.grants import Grant, Grants
from standin.s3_bucket import Bucket, Owner
from standin.store_front import listen

REGION = "us-west-2"
# Drivers put the bucket before the `endPoint` of an answer, which makes a name that the certificate covers.
VIRTUAL_HOST = "storage.localhost"


class ObjectStore:
    def __init__(self, audit: Audit, faults: Faults, grants: Grants, tls: Tls | None) -> None:
        self._grants = grants
        self._owner = Owner(REGION)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._bucket = f"sfc-stage-{secrets.token_hex(6)}"
        listener = listen("objectstore", self, audit, faults, tls)
        listener.start()
        self.port = listener.port
        self.endpoint = f"127.0.0.1:{self.port}"
        self.virtual_endpoint = f"{VIRTUAL_HOST}:{self.port}"
        ca_file = str(tls.ca_file) if tls else None
        self._client = self._owner.client(f"{listener.scheme}://{self.endpoint}", ca_file)
        self.objects = self.make_bucket("s3", self._bucket)

    def make_bucket(self, form: Form, name: str) -> Bucket:
        return Bucket(form, name, self._client, REGION)

    def grant(self, prefix: str) -> Grant:
        """Credentials for one PUT: they may write below `prefix` and nowhere else."""
        return self._grants.issue("ASIA" + secrets.token_hex(8).upper(), prefix)

    def is_own(self, request: Request) -> bool:
        return signature.access_key(request.headers) == self._owner.access_key

    def answer(self, request: Request) -> Answer:
        """A request of a client is refused without valid credentials."""
        if not self.is_own(request):
            refusal = self._refusal(request) or _body_mismatch(request)
            if refusal is not None:
                return refusal
        return wsgi.run(self._moto, self._in_path(request))

    def _refusal(self, request: Request) -> Answer | None:
        access_key = signature.access_key(request.headers)
        if access_key is None:
            return xml_error(403, "AccessDenied", "Access Denied")
        grant = self._grants.find(access_key)
        if grant is None:
            return xml_error(
                403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
            )
        if request.headers.get("x-amz-security-token") != grant.token:
            return xml_error(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
        if not self._grants.spend(grant):
            return xml_error(400, "ExpiredToken", "The provided token has expired.")
        if not signature.valid(request.method, request.target, request.headers, grant.name, grant.secret, REGION):
            return xml_error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )
        if not self._in_path(request).path.startswith(f"/{self._bucket}/{grant.prefix}"):
            return xml_error(403, "AccessDenied", "Access Denied")
        return None

    def _in_path(self, request: Request) -> Request:
        """The request with its bucket in the path, the only form that moto knows for hosts other than Amazon's."""
        if request.headers.get("host", "").split(":", 1)[0] != f"{self._bucket}.{VIRTUAL_HOST}":
            return request
        return replace(
            request,
            target=f"/{self._bucket}{request.target}",
            path=f"/{self._bucket}{request.path}",
            headers=request.headers | {"host": self.endpoint},
        )


def _body_mismatch(request: Request) -> Answer | None:
    """The signature covers a digest of the body; whether the body has it is for the store to check."""
    promised = request.headers.get("x-amz-content-sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", promised):
        return None  # UNSIGNED-PAYLOAD and the streaming forms promise nothing here
    if hashlib.sha256(request.body).hexdigest() == promised:
        return None
    return xml_error(
        400,
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )


def stage_info(store: ObjectStore, prefix: str, bucket_in_host: bool) -> dict[str, Any]:
    """What a PUT answer says of S3."""
    grant = store.grant(prefix)
    return {
        "locationType": "S3",
        "location": f"{store.objects.bucket}/{prefix}",
        "region": REGION,
        "storageAccount": None,
        "creds": {
            "AWS_KEY_ID": grant.name,
            "AWS_SECRET_KEY": grant.secret,
            "AWS_TOKEN": grant.token,
            "AWS_ID": grant.name,
            "AWS_KEY": grant.secret,
        },
        "credExpiryTime": int(grant.expires * 1000),
        "presignedUrl": None,
        "endPoint": store.virtual_endpoint if bucket_in_host else store.endpoint,
        "useS3RegionalUrl": False,
        "useRegionalUrl": False,
        "useVirtualUrl": False,
        "volumeEncryptionMode": None,
        "encryptionKmsKeyId": None,
        "bucketName": None,
        "pathPrefix": None,
    }
