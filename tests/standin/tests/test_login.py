"""Who gets in, who does not, and with which code."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from driver import Admin, Driver, Identity, Refused


def token_for(
    identity: Identity, key: rsa.RSAPrivateKey, public_of: rsa.RSAPrivateKey | None = None, **change: Any
) -> str:
    der = (
        (public_of or key)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    fingerprint = base64.b64encode(hashlib.sha256(der).digest()).decode()
    subject = f"{identity.account.upper()}.{identity.user}"
    now = int(time.time())
    claims = {"iss": f"{subject}.SHA256:{fingerprint}", "sub": subject, "iat": now, "exp": now + 60} | change
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm="RS256")


def refusal(admin: Admin, account: str, **login: Any) -> str:
    with pytest.raises(Refused) as caught:
        Driver(admin).log_in(account, **login)
    return caught.value.code


def test_password_and_the_shape_of_the_answer(admin: Admin, identity: Identity) -> None:
    with Driver.logged_in(admin, identity) as driver:
        data = driver.login_data
        assert data["sessionInfo"] == {
            "databaseName": "ANALYTICS_DB",
            "schemaName": "REPORTS",
            "warehouseName": "COMPUTE_WH",
            "roleName": "LOADER_ROLE",
        }
        assert data["masterToken"] and data["masterToken"] != data["token"]
        assert (data["validityInSeconds"], data["masterValidityInSeconds"]) == (3600, 14400)
        assert data["sessionId"] > 2**53


@pytest.mark.parametrize("user", ["LOADER", "loader", "NOBODY"])
def test_wrong_password(admin: Admin, identity: Identity, user: str) -> None:
    assert refusal(admin, identity.account, LOGIN_NAME=user, PASSWORD="wrong") == "390100"


def test_account_case_and_region_do_not_matter(admin: Admin, identity: Identity) -> None:
    for spelling in (identity.account.upper(), identity.account + ".eu-west-1.aws"):
        with Driver.logged_in(admin, Identity(spelling, "loader", identity.password)) as driver:
            assert driver.one("SELECT CURRENT_ACCOUNT()") == identity.account.upper()


def test_unknown_account_is_refused_by_the_front_end(admin: Admin) -> None:
    response = Driver(admin).post("/session/v1/login-request", {"data": {"ACCOUNT_NAME": "nobody"}})
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "text/html"


def test_key_pair(admin: Admin, identity: Identity, private_key: rsa.RSAPrivateKey) -> None:
    with Driver(admin) as driver:
        token = token_for(identity, private_key)
        driver.log_in(identity.account, AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=token)
        assert driver.one("SELECT CURRENT_USER()") == "LOADER"


def test_key_pair_refusals(admin: Admin, identity: Identity, private_key: rsa.RSAPrivateKey) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = int(time.time())
    account, user = identity.account.upper(), identity.user
    valid = jwt.decode(token_for(identity, private_key), options={"verify_signature": False})["iss"]
    fingerprint = valid.rsplit(".", 1)[1]
    cases = {
        "390144": "this is no token",
        "394300": token_for(identity, private_key, iss=f"{account}.NOBODY.{fingerprint}", sub=f"{account}.NOBODY"),
        "394301": token_for(identity, private_key, exp=None),
        "394302": token_for(identity, private_key, iat=now - 90),
        "394303": token_for(identity, private_key, exp=now - 1),
        "394304": token_for(identity, other),
        "394305": jwt.encode({"iss": valid, "sub": f"{account}.{user}", "iat": now, "exp": now + 60}, "x" * 40),
        "394306": token_for(identity, other, public_of=private_key),
        "394307": token_for(identity, private_key, iss=f"OTHER.{user}.{fingerprint}", sub=f"OTHER.{user}"),
    }
    answered = {
        code: refusal(admin, identity.account, AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=token)
        for code, token in cases.items()
    }
    assert answered == {code: code for code in cases}
    too_long = token_for(identity, private_key, exp=now + 3700)
    assert refusal(admin, identity.account, AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=too_long) == "394303"
    wrong_subject = token_for(identity, private_key, sub=f"{account}.OTHER")
    assert refusal(admin, identity.account, AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=wrong_subject) == "394300"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"warehouse": "NO_WH"}, "390201"),
        ({"databaseName": "NO_DB"}, "390201"),
        ({"databaseName": "ANALYTICS_DB", "schemaName": "NO_SCHEMA"}, "390201"),
        ({"databaseName": '"analytics_db"'}, "390201"),
        ({"roleName": "NO_ROLE"}, "390189"),
    ],
)
def test_wrong_defaults(admin: Admin, identity: Identity, query: dict[str, str], code: str) -> None:
    credentials = {"LOGIN_NAME": identity.user, "PASSWORD": identity.password}
    assert refusal(admin, identity.account, query=query, **credentials) == code
    # Without CLIENT_VALIDATE_DEFAULT_PARAMETERS the same names are dropped without a word.
    with Driver(admin) as driver:
        silent = {"CLIENT_VALIDATE_DEFAULT_PARAMETERS": False}
        driver.log_in(identity.account, query=query, parameters=silent, **credentials)
        assert driver.login_data["sessionInfo"]["warehouseName"] is None


def test_names_are_folded_unless_quoted(admin: Admin, identity: Identity) -> None:
    query = {
        "databaseName": "analytics_db",
        "schemaName": '"REPORTS"',
        "warehouse": "compute_wh",
        "roleName": "analyst",
    }
    with Driver.logged_in(admin, identity, query=query) as driver:
        assert driver.login_data["sessionInfo"]["schemaName"] == "REPORTS"
        assert driver.one("SELECT CURRENT_ROLE()") == "ANALYST"
