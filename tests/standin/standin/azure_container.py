"""A container of Azurite as `StageObjects`, through Microsoft's own client. The stages of Azure accounts lie in it."""

from __future__ import annotations

from collections.abc import Iterable

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient

from standin.envelope import Form
from standin.stage_objects import Fetched, Listed


class Container:
    def __init__(self, url: str, container: str, key: str) -> None:
        self.form: Form = "azure"
        self.bucket = container
        self._client = ContainerClient(url, container, credential=key)
        self._client.create_container()

    def put(self, key: str, body: bytes, metadata: dict[str, str]) -> str:
        answer = self._client.upload_blob(key, body, metadata=metadata, overwrite=True).get_blob_properties()
        return str(answer.etag).strip('"')

    def get(self, key: str) -> Fetched | None:
        try:
            stream = self._client.download_blob(key)
        except ResourceNotFoundError:
            return None
        properties = stream.properties
        return Fetched(stream.readall(), dict(properties.metadata), str(properties.etag).strip('"'))

    def list(self, prefix: str) -> list[Listed]:
        return [
            Listed(blob.name, int(blob.size), str(blob.etag).strip('"'), blob.last_modified)
            for blob in self._client.list_blobs(name_starts_with=prefix)
        ]

    def metadata(self, key: str) -> dict[str, str]:
        return dict(self._client.get_blob_client(key).get_blob_properties().metadata)

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._client.delete_blob(key)
