"""A small driver for the tests: the protocol as a client speaks it, with nothing hidden."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from botocore.config import Config
from snowflake.connector.encryption_util import SnowflakeEncryptionUtil
from snowflake.connector.storage_client import SnowflakeFileEncryptionMaterial

TIMEOUT = 60
PARQUET = (
    "FILE_FORMAT=(TYPE=PARQUET USE_VECTORIZED_SCANNER=TRUE USE_LOGICAL_TYPE=TRUE BINARY_AS_TEXT=FALSE TRIM_SPACE=FALSE "
    "REPLACE_INVALID_CHARACTERS=FALSE NULL_IF=()) ON_ERROR=ABORT_STATEMENT PURGE=FALSE"
)


@dataclass(frozen=True)
class Identity:
    account: str
    user: str
    password: str


class Refused(Exception):
    """A logical error: the code, SQLSTATE and message of the answer."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['code']}: {answer['message']}")
        self.code = answer["code"]
        self.message = answer["message"]
        self.sqlstate = (answer.get("data") or {}).get("sqlState")


class Admin:
    def __init__(self, ready: dict[str, Any]) -> None:
        self.ready = ready
        self.url = ready["url"]
        self.port = ready["port"]
        self.ca_file: str | None = ready.get("ca_file")
        self._headers = {"X-Admin-Token": ready["admin_token"]}

    def _call(self, method: str, what: str, **options: Any) -> Any:
        options |= {"headers": self._headers, "timeout": TIMEOUT, "verify": self.ca_file or True}
        answer = requests.request(method, f"{self.url}/admin/{what}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, what: str, **query: Any) -> Any:
        return self._call("GET", what, params=query)

    def post(self, what: str, body: dict[str, Any]) -> Any:
        return self._call("POST", what, json=body)

    def delete(self, what: str, body: dict[str, Any] | None = None) -> Any:
        return self._call("DELETE", what, json=body)

    def fault(self, action: dict[str, Any], times: int = 1, skip: int = 0, **match: str) -> None:
        self.post("faults", {"match": match, "action": action, "times": times, "skip": skip})

    def last(self) -> int:
        """The number of the newest audit record."""
        records = self.get("audit")["records"]
        return records[-1]["sequence"] if records else 0

    def audit(self, after: int = 0) -> list[dict[str, Any]]:
        return self.get("audit", after=after)["records"]

    def sql(self, account: str, sql: str) -> list[list[str | None]]:
        body = {"account": account, "sql": sql, "database": "ANALYTICS_DB", "schema": "REPORTS"}
        return self.post("sql", body)["rows"]


class Driver:
    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self.http = requests.Session()
        self.http.trust_env = False  # or an environment's bundle of CAs would outrank the one named here
        self.http.verify = admin.ca_file or True
        self.token: str | None = None
        self.master_token: str | None = None
        self.login_data: dict[str, Any] = {}

    @classmethod
    def logged_in(cls, admin: Admin, identity: Identity, **options: Any) -> Self:
        driver = cls(admin)
        driver.log_in(identity.account, LOGIN_NAME=identity.user, PASSWORD=identity.password, **options)
        return driver

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.token:
            self.post("/session", {}, delete="true")
        self.http.close()

    def post(self, path: str, body: dict[str, Any], token: str | None = None, **query: str) -> requests.Response:
        headers = {
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            "Accept": "application/json",
        }
        if token or self.token:
            headers["Authorization"] = f'Snowflake Token="{token or self.token}"'
        query = {"requestId": str(uuid.uuid4()), "request_guid": str(uuid.uuid4()), **query}
        payload = gzip.compress(json.dumps(body).encode())
        return self.http.post(self.admin.url + path, params=query, data=payload, headers=headers, timeout=TIMEOUT)

    def get(self, path: str, **headers: str) -> dict[str, Any]:
        """An answer of the endpoints that are asked with GET."""
        query = {"requestId": str(uuid.uuid4()), "request_guid": str(uuid.uuid4())}
        headers = {"Authorization": f'Snowflake Token="{self.token}"', "Accept": "application/json", **headers}
        response = self.http.get(self.admin.url + path, params=query, headers=headers, timeout=TIMEOUT)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The final answer of a statement, asked for as long as it takes."""
        deadline = time.monotonic() + TIMEOUT
        while answer["code"] in {"333333", "333334"}:
            assert time.monotonic() < deadline, "the statement never ended"
            answer = self.get(f"/queries/{answer['data']['queryId']}/result")
        return answer

    def log_in(
        self,
        account: str,
        query: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
        **credentials: Any,
    ) -> None:
        data = {
            "CLIENT_APP_ID": "snowflake_bridge",
            "CLIENT_APP_VERSION": "0.1.0",
            "ACCOUNT_NAME": account,
            "SESSION_PARAMETERS": {"CLIENT_VALIDATE_DEFAULT_PARAMETERS": True, "TIMEZONE": "UTC", **(parameters or {})},
            **credentials,
        }
        where = {"databaseName": "ANALYTICS_DB", "schemaName": "REPORTS", "warehouse": "COMPUTE_WH"}
        response = self.post("/session/v1/login-request", {"data": data}, **(where if query is None else query))
        assert response.status_code == 200, response.text
        answer = response.json()
        if not answer["success"]:
            raise Refused(answer)
        self.login_data = answer["data"]
        self.token, self.master_token = answer["data"]["token"], answer["data"]["masterToken"]

    def answer(self, sql: str, **query: str) -> dict[str, Any]:
        body = {"sqlText": sql, "asyncExec": False, "sequenceId": 1}
        response = self.post("/queries/v1/query-request", body, **query)
        assert response.status_code == 200, response.text
        return response.json()

    def run(self, sql: str, **query: str) -> dict[str, Any]:
        """The `data` of a successful answer, waited for if need be."""
        answer = self.result(self.answer(sql, **query))
        if not answer["success"]:
            raise Refused(answer)
        return answer["data"]

    def rows(self, sql: str) -> list[list[str | None]]:
        return self.run(sql)["rowset"]

    def one(self, sql: str) -> str | None:
        return self.rows(sql)[0][0]

    def table(self, sql: str) -> list[dict[str, str | None]]:
        data = self.run(sql)
        names = [column["name"] for column in data["rowtype"]]
        return [dict(zip(names, row, strict=True)) for row in data["rowset"]]

    def upload(self, directory: str, name: str, content: bytes, **spoil: Any) -> dict[str, Any]:
        """PUT as a driver does it: ask, encrypt, send. `spoil` replaces parts of what is sent."""
        answer = self.run(
            f"PUT 'file:///{name}' '{directory}' PARALLEL=4 AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE OVERWRITE=TRUE"
        )
        info = answer["stageInfo"]
        body, metadata = sealed(answer["encryptionMaterial"], content, info["locationType"])
        body = spoil.get("body", body)
        metadata = {**metadata, **spoil.get("metadata", {})}
        metadata = {field: value for field, value in metadata.items() if value is not None}
        if info["locationType"] == "S3":
            client, bucket, prefix = store(info, self.admin.ca_file)
            client.put_object(Bucket=bucket, Key=prefix + name, Body=body, Metadata=metadata)
        else:
            send(info, name, body, metadata, self.admin.ca_file).raise_for_status()
        return answer


def sealed(material: dict[str, Any] | None, content: bytes, cloud: str = "S3") -> tuple[bytes, dict[str, str]]:
    """The body and metadata of a staged object, encrypted by the official connector's code."""
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    metadata = {"sfcdigest" if cloud == "AZURE" else "sfc-digest": digest}
    if material is None:
        return content, metadata
    out = io.BytesIO()
    envelope = SnowflakeEncryptionUtil.encrypt_stream(
        SnowflakeFileEncryptionMaterial(material["queryStageMasterKey"], material["queryId"], material["smkId"]),
        io.BytesIO(content),
        out,
    )
    if cloud == "S3":
        metadata |= {"x-amz-key": envelope.key, "x-amz-iv": envelope.iv, "x-amz-matdesc": envelope.matdesc}
    else:
        metadata |= {"encryptiondata": encryption_data(envelope.key, envelope.iv), "matdesc": envelope.matdesc}
    return out.getvalue(), metadata


def encryption_data(key: str, iv: str) -> str:
    """What objects in Azure's and Google's stores carry."""
    data = {
        "EncryptionMode": "FullBlob",
        "WrappedContentKey": {"KeyId": "symmKey1", "EncryptedKey": key, "Algorithm": "AES_CBC_256"},
        "EncryptionAgent": {"Protocol": "1.0", "EncryptionAlgorithm": "AES_CBC_256"},
        "ContentEncryptionIV": iv,
        "KeyWrappingMetadata": {"EncryptionLibrary": "Java 5.3.0"},
    }
    return json.dumps(data)


def send(
    info: dict[str, Any], name: str, body: bytes, metadata: dict[str, str], ca_file: str | None = None
) -> requests.Response:
    """One object to a store of Azure's or Google's kind, addressed and authorised as the PUT answer says."""
    bucket, prefix = info["location"].split("/", 1)
    headers, host, path = {}, info["endPoint"], f"/{bucket}/{prefix}{name}"
    field, query = "x-goog-meta-", ""
    if info["locationType"] == "AZURE":
        headers["x-ms-blob-type"] = "BlockBlob"
        host, field = f"{info['storageAccount']}.{info['endPoint']}", "x-ms-meta-"
        query = "?" + info["creds"]["AZURE_SAS_TOKEN"].removeprefix("?")
    elif info["creds"]:
        headers["Authorization"] = f"Bearer {info['creds']['GCS_ACCESS_TOKEN']}"
        if info["useVirtualUrl"]:
            path = f"/{prefix}{name}"
    url = info["presignedUrl"] or f"{'https' if ca_file else 'http'}://{host}{path}{query}"
    headers |= {field + key: value for key, value in metadata.items()}
    return requests.put(url, data=body, headers=headers, timeout=TIMEOUT, verify=ca_file or True)


def store(info: dict[str, Any], ca_file: str | None = None, **credentials: str) -> tuple[Any, str, str]:
    """An S3 client for a stage, its bucket and its prefix; with TLS where there is a CA to trust."""
    creds = info["creds"] | credentials
    client = boto3.client(
        "s3",
        endpoint_url=f"{'https' if ca_file else 'http'}://{info['endPoint']}",
        verify=ca_file,
        region_name=info["region"],
        aws_access_key_id=creds["AWS_KEY_ID"],
        aws_secret_access_key=creds["AWS_SECRET_KEY"],
        aws_session_token=creds["AWS_TOKEN"],
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
    )
    bucket, prefix = info["location"].split("/", 1)
    return client, bucket, prefix


def parquet(columns: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def wait_for_query(admin: Admin, mark: int, sql: str) -> None:
    """Until the stand-in has received the statement."""
    deadline = time.monotonic() + TIMEOUT
    while not any(record["sql"] == sql for record in admin.audit(mark)):
        assert time.monotonic() < deadline, f"the stand-in never saw {sql}"
