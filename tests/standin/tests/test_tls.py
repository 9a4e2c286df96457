"""With `--tls`: one certificate that a careful client accepts, and four listeners that it must refuse."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD
from driver import Admin, Driver, Identity


def careful(admin: Admin) -> ssl.SSLContext:
    """A client that trusts the CA, and speaks nothing older than TLS 1.2 whatever the system's defaults are."""
    context = ssl.create_default_context(cafile=admin.ready["ca_file"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def peer(admin: Admin, port: int, name: str, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    """The certificate that the listener shows a client which trusts the CA and asks for the name."""
    trusting = context or careful(admin)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        trusting.wrap_socket(plain, server_hostname=name) as shaken,
    ):
        return dict(shaken.getpeercert() or {})


@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1",
        "localhost",
        "acme-demo.localhost",
        "tls-acct.localhost",
        "stage.blob.localhost",
        "stage.storage.localhost",
    ],
)
def test_the_certificate_is_good_for_each_of_its_names(encrypted: Admin, name: str) -> None:
    for port in (encrypted.port, encrypted.ready["s3_port"]):
        assert peer(encrypted, port, name)["issuer"] != peer(encrypted, port, name)["subject"]


def test_ready_says_so(encrypted: Admin, admin: Admin) -> None:
    assert encrypted.ready["tls"] is True
    assert encrypted.url == f"https://127.0.0.1:{encrypted.port}"
    assert sorted(encrypted.ready["bad_tls"]) == ["expired", "self_signed", "tls_1_1", "wrong_host"]
    assert "tls" not in admin.ready and "bad_tls" not in admin.ready


def test_keys_are_nobody_elses(encrypted: Admin) -> None:
    keys = list((Path(encrypted.ready["ca_file"]).parent / "tls").glob("*.key"))
    assert len(keys) == 4
    assert [key for key in keys if key.stat().st_mode & 0o077] == []


def test_an_account_that_joins_later_is_named_too(encrypted: Admin) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        peer(encrypted, encrypted.port, "late-comer.localhost")
    encrypted.post("accounts", {"accounts": [{"name": "late_comer"}]})
    for port in (encrypted.port, encrypted.ready["s3_port"]):
        assert peer(encrypted, port, "late-comer.localhost")


@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        ("expired", "certificate has expired"),
        ("self_signed", "self-signed certificate"),
        ("wrong_host", "mismatch|not valid for"),
        ("tls_1_1", "(?i)protocol.version|unsupported protocol"),
    ],
)
def test_a_careful_client_refuses_and_has_sent_nothing(encrypted: Admin, defect: str, reason: str) -> None:
    mark = encrypted.last()
    with pytest.raises(ssl.SSLError, match=reason):
        peer(encrypted, encrypted.ready["bad_tls"][defect], "127.0.0.1")
    assert encrypted.audit(mark) == []


def test_the_outdated_listener_has_that_defect_only(encrypted: Admin) -> None:
    old = ssl.create_default_context(cafile=encrypted.ready["ca_file"])
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    assert peer(encrypted, encrypted.ready["bad_tls"]["tls_1_1"], "tls-acct.localhost", old)


def test_no_plain_http(encrypted: Admin) -> None:
    for port in (encrypted.port, encrypted.ready["s3_port"]):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP/1." not in plain.recv(100)


def test_a_client_that_never_shakes_hands_delays_nobody(encrypted: Admin) -> None:
    with socket.create_connection(("127.0.0.1", encrypted.port)):
        assert encrypted.get("sessions")["sessions"] == []


def test_a_load_over_tls(encrypted: Admin) -> None:
    with Driver.logged_in(encrypted, Identity("tls_acct", "LOADER", PASSWORD)) as driver:
        driver.upload("@~/d/", "part-00000.parquet", b"x")
        assert len(driver.rows("LIST @~/d/")) == 1
