"""Credentials other than password and key: passcodes, access tokens, OAuth; and what keeps out who has the right ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from driver import Admin, Driver, Identity, Refused

PASSWORD = "open sesame"
CODE = "123456"
BRIDGE = ("bridge", "s3cret +/=")


def add_user(admin: Admin, identity: Identity, **about: Any) -> Identity:
    """A user of the given kind in the account."""
    user = {
        "name": "SOMEBODY",
        "password": PASSWORD,
        "roles": ["LOADER_ROLE", "ANALYST"],
        "default_role": "LOADER_ROLE",
    }
    admin.post("accounts", {"accounts": [{"name": identity.account, "users": [user | about]}]})
    return Identity(identity.account, "SOMEBODY", PASSWORD)


def attempt(admin: Admin, who: Identity, query: dict[str, str] | None = None, /, **credentials: Any) -> dict[str, Any]:
    """The whole answer of a login. A session that comes of it is left to the process."""
    driver = Driver(admin)
    data = {"ACCOUNT_NAME": who.account, "LOGIN_NAME": who.user, "SESSION_PARAMETERS": {}, **credentials}
    response = driver.post("/session/v1/login-request", {"data": data}, **(query or {}))
    driver.http.close()
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def role_of(answer: dict[str, Any]) -> str:
    assert answer["success"], answer
    return str(answer["data"]["sessionInfo"]["roleName"])


# Passcodes


def test_passcode(admin: Admin, identity: Identity) -> None:
    who = add_user(admin, identity, passcode=CODE)
    by_passcode = {"EXT_AUTHN_DUO_METHOD": "passcode"}
    for right in (
        {"PASSWORD": PASSWORD, "PASSCODE": CODE, **by_passcode},
        {"PASSWORD": PASSWORD + CODE, **by_passcode},
    ):
        assert attempt(admin, who, **right)["success"]
    for wrong in (
        {"PASSWORD": PASSWORD},
        {"PASSWORD": PASSWORD, **by_passcode},
        {"PASSWORD": PASSWORD, "PASSCODE": "654321", **by_passcode},
        {"PASSWORD": PASSWORD, "PASSCODE": CODE},
        {"PASSWORD": PASSWORD + "654321", **by_passcode},
        {"PASSWORD": PASSWORD + CODE},
    ):
        answer = attempt(admin, who, **wrong)
        assert (answer["code"], answer["data"]["nextAction"]) == ("394508", "RETRY_LOGIN"), wrong
    assert attempt(admin, who, PASSWORD="wrong", PASSCODE=CODE, **by_passcode)["code"] == "390100"


# Programmatic access tokens


@pytest.fixture
def token_user(admin: Admin, identity: Identity) -> Identity:
    tokens = [
        {"token": "any-role", "role": None, "state": "active"},
        {"token": "analyst-only", "role": "ANALYST"},
        {"token": "too-old", "state": "expired"},
        {"token": "switched-off", "state": "disabled"},
    ]
    return add_user(admin, identity, programmatic_access_tokens=tokens)


def test_programmatic_access_token(admin: Admin, token_user: Identity) -> None:
    for credentials in (
        {"AUTHENTICATOR": "PROGRAMMATIC_ACCESS_TOKEN", "TOKEN": "any-role"},
        {"PASSWORD": "any-role"},
    ):
        assert role_of(attempt(admin, token_user, **credentials)) == "LOADER_ROLE"
        assert role_of(attempt(admin, token_user, {"roleName": "ANALYST"}, **credentials)) == "ANALYST"


@pytest.mark.parametrize("token", ["too-old", "switched-off", "unheard-of"])
def test_programmatic_access_token_refused(admin: Admin, token_user: Identity, token: str) -> None:
    answer = attempt(admin, token_user, AUTHENTICATOR="PROGRAMMATIC_ACCESS_TOKEN", TOKEN=token)
    assert (answer["code"], answer["message"]) == ("394400", "Programmatic access token is invalid.")
    assert answer["data"] == {"nextAction": "RETRY_LOGIN", "authnMethod": "PAT", "signInOptions": {}}
    stranger = Identity(token_user.account, "LOADER", "")
    answer = attempt(admin, stranger, AUTHENTICATOR="PROGRAMMATIC_ACCESS_TOKEN", TOKEN="any-role")
    assert answer["code"] == "394400"


def test_programmatic_access_token_of_one_role(admin: Admin, token_user: Identity) -> None:
    credentials = {"AUTHENTICATOR": "PROGRAMMATIC_ACCESS_TOKEN", "TOKEN": "analyst-only"}
    assert role_of(attempt(admin, token_user, **credentials)) == "ANALYST"
    assert role_of(attempt(admin, token_user, {"roleName": "analyst"}, **credentials)) == "ANALYST"
    # Also without CLIENT_VALIDATE_DEFAULT_PARAMETERS.
    assert attempt(admin, token_user, {"roleName": "LOADER_ROLE"}, **credentials)["code"] == "390189"


# OAuth


@pytest.fixture
def oauth_account(admin: Admin, identity: Identity) -> Identity:
    client = {
        "client_id": BRIDGE[0], "client_secret": BRIDGE[1], "user": "LOADER",
        "scopes": ["session:role:LOADER_ROLE", "session:role:ANALYST"], "expires_in": 600,
    }  # fmt: skip
    admin.post("accounts", {"accounts": [{"name": identity.account, "oauth_clients": [client]}]})
    return identity


def ask_token(admin: Admin, account: str, form: dict[str, str], **options: Any) -> requests.Response:
    headers = {"Host": f"{account}.localhost:{admin.port}", "Accept": "application/json", **options.pop("headers", {})}
    return requests.post(f"{admin.url}/oauth/token-request", data=form, headers=headers, timeout=30, **options)


def test_client_credentials(admin: Admin, oauth_account: Identity) -> None:
    form = {"grant_type": "client_credentials", "scope": "session:role:ANALYST"}
    told = ask_token(admin, oauth_account.account, form, auth=BRIDGE)
    assert told.status_code == 200, told.text
    answer = told.json()
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 600, "session:role:ANALYST")
    login = attempt(admin, oauth_account, AUTHENTICATOR="OAUTH", TOKEN=answer["access_token"])
    assert role_of(login) == "ANALYST"
    in_body = form | {"client_id": BRIDGE[0], "client_secret": BRIDGE[1]}
    assert ask_token(admin, oauth_account.account, in_body).json()["access_token"] != answer["access_token"]


@pytest.mark.parametrize(
    ("form", "auth", "status", "error"),
    [
        ({"grant_type": "client_credentials"}, (BRIDGE[0], "wrong"), 401, "invalid_client"),
        ({"grant_type": "client_credentials"}, ("nobody", BRIDGE[1]), 401, "invalid_client"),
        ({"grant_type": "client_credentials"}, None, 401, "invalid_client"),
        ({"grant_type": "password"}, BRIDGE, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "scope": "session:role:ACCOUNTADMIN"}, BRIDGE, 400, "invalid_scope"),
    ],
)
def test_client_credentials_refused(
    admin: Admin, oauth_account: Identity, form: dict[str, str], auth: tuple[str, str] | None, status: int, error: str
) -> None:
    told = ask_token(admin, oauth_account.account, form, auth=auth)
    assert told.status_code == status
    assert told.json()["error"] == error and told.json()["error_description"]


def test_token_request_must_be_a_form(admin: Admin, oauth_account: Identity) -> None:
    json_type = {"Content-Type": "application/json"}
    told = ask_token(admin, oauth_account.account, {}, auth=BRIDGE, headers=json_type)
    assert (told.status_code, told.json()["error"]) == (400, "invalid_request")


def test_oauth_login(admin: Admin, oauth_account: Identity) -> None:
    account = oauth_account.account
    token = admin.post("oauth", {"account": account, "user": "LOADER", "role": None})["access_token"]
    credentials = {"AUTHENTICATOR": "OAUTH", "TOKEN": token}
    assert role_of(attempt(admin, oauth_account, **credentials)) == "LOADER_ROLE"
    assert role_of(attempt(admin, oauth_account, LOGIN_NAME="", **credentials)) == "LOADER_ROLE"
    assert attempt(admin, oauth_account, LOGIN_NAME="OTHER", **credentials)["code"] == "390309"
    bound = admin.post("oauth", {"account": account, "user": "LOADER", "role": "ANALYST"})["access_token"]
    answer = attempt(admin, oauth_account, {"roleName": "LOADER_ROLE"}, AUTHENTICATOR="OAUTH", TOKEN=bound)
    assert answer["code"] == "390317"


def test_oauth_tokens_that_are_good_no_more(admin: Admin, oauth_account: Identity) -> None:
    account = oauth_account.account
    token = admin.post("oauth", {"account": account, "user": "LOADER"})["access_token"]
    admin.post("oauth/expire", {"account": account})
    answer = attempt(admin, oauth_account, AUTHENTICATOR="OAUTH", TOKEN=token)
    assert answer["code"] == "390318"
    assert answer["data"] == {"nextAction": "RETRY_LOGIN", "authnMethod": "OAUTH", "signInOptions": {}}
    assert attempt(admin, oauth_account, AUTHENTICATOR="OAUTH", TOKEN="never given")["code"] == "390303"
    fresh = admin.post("oauth", {"account": account, "user": "LOADER"})["access_token"]
    assert attempt(admin, oauth_account, AUTHENTICATOR="OAUTH", TOKEN=fresh)["success"]


def test_faults_and_audit_of_token_requests(admin: Admin, oauth_account: Identity) -> None:
    mark = admin.last()
    admin.fault({"status": 503}, kind="oauth")
    form = {"grant_type": "client_credentials"}
    answers = [ask_token(admin, oauth_account.account, form, auth=BRIDGE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 200]
    attempt(admin, oauth_account, AUTHENTICATOR="OAUTH", TOKEN=answers[1].json()["access_token"], PASSCODE=CODE)
    records = admin.audit(mark)
    assert [record["kind"] for record in records] == ["oauth", "oauth", "login"]
    assert records[2]["login"]["AUTHENTICATOR"] == "OAUTH"
    told = json.dumps(records)
    assert answers[1].json()["access_token"] not in told and CODE not in told and "Basic" not in told


# Users who are kept out


@pytest.mark.parametrize(
    ("about", "code", "text"),
    [
        ({"disabled": True}, "390401", "User access disabled"),
        ({"network_policy": "blocked"}, "390422", "is not allowed to access Snowflake"),
        ({"network_policy": "missing"}, "390432", "Network policy is required"),
    ],
)
def test_kept_out(admin: Admin, identity: Identity, about: dict[str, Any], code: str, text: str) -> None:
    who = add_user(admin, identity, programmatic_access_tokens=[{"token": "t"}], **about)
    for credentials in ({"PASSWORD": PASSWORD}, {"AUTHENTICATOR": "PROGRAMMATIC_ACCESS_TOKEN", "TOKEN": "t"}):
        answer = attempt(admin, who, **credentials)
        assert (answer["code"], answer["data"], answer["success"]) == (code, None, False)
        assert text in answer["message"]
    # Who is not who they say learns nothing about the user.
    assert attempt(admin, who, PASSWORD="wrong")["code"] == "390100"


@pytest.mark.parametrize("action", ["PWD_CHANGE", "EXT_AUTHN_DUO_ALL"])
def test_next_action(admin: Admin, identity: Identity, action: str) -> None:
    answer = attempt(admin, add_user(admin, identity, next_action=action), PASSWORD=PASSWORD)
    assert answer["success"] is False and answer["message"]
    assert answer["data"]["nextAction"] == action
    assert "token" not in answer["data"]


def test_five_wrong_passwords_lock(admin: Admin, identity: Identity) -> None:
    who = add_user(admin, identity)
    for _ in range(4):
        assert attempt(admin, who, PASSWORD="wrong")["code"] == "390100"
    assert attempt(admin, who, PASSWORD=PASSWORD)["success"]  # which ends the row
    for _ in range(5):
        assert attempt(admin, who, PASSWORD="wrong")["code"] == "390100"
    locked = attempt(admin, who, PASSWORD=PASSWORD)
    assert "temporarily locked" in locked["message"] and not locked["success"]
    admin.post("unlock", {"account": who.account, "user": who.user})
    assert attempt(admin, who, PASSWORD=PASSWORD)["success"]


def test_misspelt_accounts_are_refused(admin: Admin, identity: Identity) -> None:
    for wrong in ({"next_action": "DANCE"}, {"network_policy": "strict"}):
        with pytest.raises(AssertionError, match="is none of"):
            add_user(admin, identity, **wrong)


def test_an_unknown_authenticator(admin: Admin, identity: Identity) -> None:
    with pytest.raises(Refused) as caught:
        Driver(admin).log_in(identity.account, AUTHENTICATOR="EXTERNALBROWSER", LOGIN_NAME=identity.user)
    assert caught.value.code == "390400"
