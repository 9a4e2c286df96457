"""The Google store: the part of Cloud Storage's XML API that uploads use, with bearer tokens and signed URLs.

Through signed URLs also official clients upload, whatever the cloud of their account: they take the URL as it is.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

from standin import envelope
from standin.audit import Audit
from standin.certificates import Tls
from standin.faults import Faults
from standin.front import Answer, Request, xml_error
from standin.gcs_signature import SIGNATURE, SignedUrls
from standin.grants import LIFE_SECONDS, Grants
from standin.stage_objects import StageObjects
from standin.store_front import listen

REGION = "US-CENTRAL1"
BUCKET = "gcs-stage"
VIRTUAL_HOST = "storage.localhost"
_METADATA_PREFIX = "x-goog-meta-"


class GcsStore:
    def __init__(self, audit: Audit, faults: Faults, grants: Grants, tls: Tls | None, objects: StageObjects) -> None:
        self._grants = grants
        self._urls = SignedUrls(REGION.lower())
        self._buckets = {objects.bucket: objects}
        self.objects = objects
        listener = listen("gcs", self, audit, faults, tls)
        listener.start()
        self.port = listener.port
        self.endpoint = f"127.0.0.1:{self.port}"
        self.base_url = f"{listener.scheme}://{self.endpoint}"
        self.virtual_endpoint = f"{objects.bucket}.{VIRTUAL_HOST}:{self.port}"

    def token(self, prefix: str) -> str:
        """A downscoped access token: it opens this prefix of the bucket and nothing else."""
        return self._grants.issue("ya29.c." + secrets.token_urlsafe(60), f"{self.objects.bucket}/{prefix}").name

    def signed_url(self, objects: StageObjects, key: str) -> str:
        """A URL that only who holds it can write to, and only this one object."""
        self._buckets[objects.bucket] = objects
        target, signature = self._urls.sign("PUT", self.endpoint, f"/{objects.bucket}/{key}", LIFE_SECONDS)
        self._grants.issue(signature, f"{objects.bucket}/{key}")
        return f"{self.base_url}{target}"

    def is_own(self, request: Request) -> bool:
        return False

    def answer(self, request: Request) -> Answer:
        bucket, key = _place(request)
        refusal = self._refusal(request, f"{bucket}/{key}")
        if refusal is not None:
            return refusal
        if bucket not in self._buckets or not key:
            return xml_error(404, "NoSuchBucket", "The specified bucket does not exist.")
        if request.method == "PUT":
            return _put(request, self._buckets[bucket], key)
        return _get(self._buckets[bucket], key)

    def _refusal(self, request: Request, path: str) -> Answer | None:
        if request.method not in {"PUT", "GET", "HEAD"}:
            return xml_error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        if SIGNATURE in request.query:
            return self._refused_url(request)
        if request.query:
            return xml_error(400, "InvalidArgument", "Uploads in parts do not go with a token of Snowflake's.")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self._grants.find(token)
        if scheme != "Bearer" or grant is None or not self._grants.spend(grant):
            return xml_error(401, "AuthenticationRequired", "Authentication required.")
        if not path.startswith(grant.prefix):
            return xml_error(403, "AccessDenied", "Access denied.")
        return None

    def _refused_url(self, request: Request) -> Answer | None:
        if "authorization" in request.headers:
            return xml_error(400, "InvalidArgument", "A signed URL and an Authorization header exclude each other.")
        if not self._urls.valid(request.method, request.headers.get("host", ""), request.target):
            return xml_error(
                403,
                "SignatureDoesNotMatch",
                "Access denied. The request signature we calculated does not match the signature you provided.",
            )
        grant = self._grants.find(request.query[SIGNATURE])
        if grant is None or not self._grants.spend(grant):
            return xml_error(400, "ExpiredToken", "The provided token has expired.")
        return None


def _place(request: Request) -> tuple[str, str]:
    """Bucket and object: the bucket is the first part of the path, or of the host."""
    path = request.path.removeprefix("/")
    bucket, dot, rest = request.headers.get("host", "").split(":", 1)[0].partition(".")
    if dot and rest == VIRTUAL_HOST:
        return bucket, path
    bucket, _, key = path.partition("/")
    return bucket, key


def _put(request: Request, objects: StageObjects, key: str) -> Answer:
    if "content-length" not in request.headers:
        return xml_error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
    if request.headers.get("content-md5", digest) != digest:
        return xml_error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
    metadata = {
        name.removeprefix(_METADATA_PREFIX): value
        for name, value in request.headers.items()
        if name.startswith(_METADATA_PREFIX)
    }
    etag = objects.put(key, request.body, _in_form_of(objects, metadata))
    return Answer(200, headers=[("ETag", f'"{etag}"'), ("x-goog-hash", f"md5={digest}")])


def _in_form_of(objects: StageObjects, metadata: dict[str, str]) -> dict[str, str]:
    """Signed URLs also lead to buckets of other clouds, whose objects have metadata of another form."""
    if objects.form == "gcs":
        return metadata
    try:
        return envelope.write(objects.form, envelope.read("gcs", metadata))
    except envelope.Unreadable:
        return {}  # which nobody can read either


def _get(objects: StageObjects, key: str) -> Answer:
    found = objects.get(key)
    if found is None:
        return xml_error(404, "NoSuchKey", "The specified key does not exist.")
    headers = [(_METADATA_PREFIX + name, value) for name, value in found.metadata.items()]
    return Answer(200, found.body, "application/octet-stream", [("ETag", f'"{found.etag}"'), *headers])


def stage_info(store: GcsStore, prefix: str, virtual: bool) -> dict[str, Any]:
    """What a PUT answer says of Google's cloud, where one token serves all files of the statement."""
    return {
        **_info(store.objects, prefix),
        "creds": {"GCS_ACCESS_TOKEN": store.token(prefix)},
        "presignedUrl": None,
        "endPoint": store.virtual_endpoint if virtual else store.endpoint,
        "useVirtualUrl": virtual,
    }


def presigned_info(store: GcsStore, objects: StageObjects, prefix: str, file: str) -> dict[str, Any]:
    """The same where a signed URL serves one file: the next one needs a PUT statement of its own."""
    return {
        **_info(objects, prefix),
        "creds": {},
        "presignedUrl": store.signed_url(objects, prefix + file),
        "endPoint": "",
        "useVirtualUrl": False,
    }


def _info(objects: StageObjects, prefix: str) -> dict[str, Any]:
    return {
        "locationType": "GCS",
        "location": f"{objects.bucket}/{prefix}",
        "region": REGION,
        "storageAccount": "",
        "useS3RegionalUrl": False,
        "useRegionalUrl": False,
    }
