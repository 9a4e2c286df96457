//! From what Snowflake answers, in codes, states and HTTP status, to what the user is told and what happens next.

use http::StatusCode;

use super::text;
use crate::{Error, ErrorKind};

/// The session token has expired and the master token renews it.
pub(crate) const SESSION_EXPIRED: &str = "390112";
/// A statement still runs, and its answer is to be fetched from another path.
pub(crate) const IN_PROGRESS: [&str; 2] = ["333333", "333334"];
/// The statement that should be aborted does not run: it is over, or has not begun.
pub(crate) const NOT_EXECUTING: &str = "000605";

/// A refusal as Snowflake worded it, with what is known about who was refused.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub(crate) code: Option<&'a str>,
    pub(crate) sqlstate: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) query_id: Option<&'a str>,
    /// What a login would have to do next, such as `PWD_CHANGE`.
    pub(crate) next_action: Option<&'a str>,
    /// The role that was used.
    pub(crate) role: Option<&'a str>,
}

/// Whether a code that a statement ends with says that only another login helps: session and master token are of no use
/// any more, or renewing did not last.
pub(crate) fn ends_session(code: &str) -> bool {
    matches!(
        code,
        SESSION_EXPIRED
            | "390104"
            | "390110"
            | "390111"
            | "390113"
            | "390114"
            | "390115"
            | "390195"
    )
}

/// Whether a login with a key pair may succeed with a new token: the server saw it too early or too late.
pub(crate) fn is_stale_jwt(code: &str) -> bool {
    matches!(code, "394302" | "394303")
}

/// What a refusal means. The kind follows from code, state and next action, never from the text.
pub(crate) fn refusal(refusal: &Refusal<'_>) -> Error {
    let code = refusal.code.unwrap_or_default();
    let meaning = meaning(code)
        .or_else(|| next_action(refusal.next_action?))
        .or_else(|| by_sqlstate(refusal.sqlstate?))
        .unwrap_or(Meaning {
            kind: if code.starts_with("39") {
                ErrorKind::Credentials
            } else {
                ErrorKind::Configuration
            },
            summary: "",
            hint: "",
        });
    let said = match refusal.message {
        Some(message) if meaning.kind == ErrorKind::Data => text::without_values(message),
        Some(message) => text::clean(message),
        None => String::new(),
    };
    let message = match (meaning.summary, said.as_str()) {
        ("", "") => "Snowflake refused without saying why".to_owned(),
        ("", said) => said.to_owned(),
        (summary, "") => summary.to_owned(),
        (summary, said) => format!("{summary}: {said}"),
    };
    let mut error = Error::new(meaning.kind, message);
    if !meaning.hint.is_empty() {
        let role = refusal.role.map_or_else(
            || "of this configuration".to_owned(),
            |role| format!("{role:?}"),
        );
        error = error.with_hint(meaning.hint.replace("{role}", &role));
    }
    if !code.is_empty() {
        error = error.with_code(text::token(code));
    }
    if let Some(sqlstate) = refusal.sqlstate {
        error = error.with_sqlstate(text::token(sqlstate));
    }
    if let Some(query_id) = refusal.query_id {
        error = error.with_query_id(text::token(query_id));
    }
    error
}

struct Meaning {
    kind: ErrorKind,
    /// Stands before the server's own words; empty where those say it best.
    summary: &'static str,
    /// A full sentence; `{role}` is replaced by the role. Empty where there is nothing to do.
    hint: &'static str,
}

#[rustfmt::skip] // One row for each code, as in a table.
fn meaning(code: &str) -> Option<Meaning> {
    use ErrorKind::{Canceled, Configuration, Credentials, Data, Internal, Transient};
    let (kind, summary, hint) = match code {
        // Login and session.
        "390100" => (Credentials, "Snowflake rejected the user name or password", "Correct the user name or password; further tries with a wrong one lock the user for 15 minutes. Users of TYPE = SERVICE cannot use a password: give them a key pair or a programmatic access token."),
        "390101" | "390400" | "394301" => (Internal, "Snowflake did not understand the login", ""),
        "390104" | "390110" | "390111" | "390113" | "390114" | "390115" | "390195" => (Transient, "the Snowflake session has ended", ""),
        SESSION_EXPIRED => (Transient, "the Snowflake session has expired", ""),
        "390139" | "390191" | "390309" => (Credentials, "Snowflake wants this user to log in through an identity provider", "Use a key pair or a programmatic access token instead."),
        "390144" => (Credentials, "Snowflake refused the key pair", "Check that the user's RSA_PUBLIC_KEY is the one that snowflake_bridge.public_key() prints, and that account and user name (LOGIN_NAME) are right. SYSTEM$GET_LOGIN_FAILURE_DETAILS with the id in the message tells an administrator more."),
        "394300" => (Credentials, "Snowflake does not know the user of the key pair", "Give the user's LOGIN_NAME, which DESCRIBE USER shows."),
        "394302" => (Credentials, "Snowflake sees the time of this server as wrong", "Set the clock of this server, for instance with NTP: a key pair login is valid for 60 seconds."),
        "394303" => (Transient, "the key pair login took too long to arrive", "Check the clock of this server."),
        "394304" => (Credentials, "the public key of the Snowflake user belongs to another private key", "Set the key with the statement that snowflake_bridge.public_key() prints."),
        "394305" => (Credentials, "Snowflake does not accept the algorithm of the key pair", "Use an RSA key of at least 2048 bits."),
        "394306" => (Credentials, "the signature of the key pair login is wrong", "Set the public key again with the statement that snowflake_bridge.public_key() prints."),
        "394307" => (Credentials, "the key pair login names another account", "Correct the account identifier."),
        "394400" => (Credentials, "Snowflake refused the programmatic access token", "The token is wrong, expired or disabled: make a new one with ALTER USER ... ADD PROGRAMMATIC ACCESS TOKEN."),
        "394508" => (Credentials, "Snowflake asks for a second factor", "A bridge cannot enter passcodes: use a key pair or a programmatic access token."),
        "390189" => (Configuration, "the role does not exist or is not granted to the user", "Correct the role, or run GRANT ROLE ... TO USER ..."),
        "390201" => (Configuration, "the warehouse, database or schema does not exist, or the role may not use it", "Correct the name, or grant USAGE on it to role {role}."),
        "390303" | "390318" => (Credentials, "Snowflake refused the OAuth token", "Fetch a new token."),
        "390401" => (Credentials, "Snowflake refused the login", ""),
        "390420" | "390422" => (Configuration, "Snowflake does not accept logins from this server's address", "Ask a Snowflake administrator to add the address to the network policy."),
        "390432" => (Configuration, "Snowflake wants a network policy for this user", "Ask a Snowflake administrator to attach a network policy to the user that allows this server's address."),
        // Statements.
        "000604" => (Canceled, "the statement was canceled in Snowflake", ""),
        "000606" => (Configuration, "the session has no warehouse", "Name a warehouse in the configuration, and grant USAGE on it to role {role}."),
        "000625" => (Transient, "the table is locked by too many others", ""),
        "000630" => (Configuration, "Snowflake's statement timeout was reached", "Raise snowflake_bridge.statement_timeout, or use a larger warehouse."),
        "001003" | "002019" => (Internal, "", ""),
        "000904" => (Configuration, "", "A column is missing or is spelled in another case; compare the table with the result's columns."),
        "002002" => (Configuration, "", "Choose another name, or drop the object that has it."),
        "002003" | "002043" => (Configuration, "", "The object does not exist, or role {role} has no privilege on it: correct the name, or grant the privilege."),
        "003001" => (Configuration, "permission denied", "Grant the missing privilege on the object to role {role}."),
        "002023" => (Data, "a column of the table has another type than the result", "Use another table, or change the column's type."),
        "100035" | "100040" | "100038" => (Data, "a value cannot be converted to the type of its column", ""),
        "100039" | "100046" => (Data, "a number is too large for its column", "Widen the column, or load the number as text with numeric => 'varchar'."),
        "100069" => (Data, "a value is not valid JSON", ""),
        "100071" => (Data, "a JSON value cannot be converted to the type of its column", ""),
        "100072" => (Data, "a NULL meets a column that is NOT NULL", "Drop the NOT NULL of the column, or fill the value in the result."),
        "100078" => (Data, "a string is too long for its column", "Widen the column."),
        "100082" | "100067" => (Data, "a value is larger than Snowflake can hold", ""),
        "100090" => (Data, "several rows have the same key", "Choose key columns that are unique in the result."),
        "200001" => (Data, "", ""),
        _ => return None,
    };
    Some(Meaning { kind, summary, hint })
}

fn next_action(action: &str) -> Option<Meaning> {
    let (summary, hint) = match action {
        "PWD_CHANGE" => (
            "Snowflake wants the user to change the password",
            "Log in to Snowflake once and change the password, or use a key pair or a programmatic access token.",
        ),
        _ if action.starts_with("EXT_AUTHN_DUO") => (
            "Snowflake asks for a second factor",
            "A bridge cannot confirm a second factor: use a key pair or a programmatic access token.",
        ),
        _ => return None,
    };
    Some(Meaning {
        kind: ErrorKind::Credentials,
        summary,
        hint,
    })
}

/// For codes that are not in the table: the class of the state tells whose fault it is.
fn by_sqlstate(sqlstate: &str) -> Option<Meaning> {
    let kind = match sqlstate {
        "57014" => ErrorKind::Canceled,
        _ if sqlstate.starts_with("22") || sqlstate.starts_with("23") => ErrorKind::Data,
        _ if sqlstate.starts_with("XX") => ErrorKind::Internal,
        _ if sqlstate.starts_with("08") || sqlstate.starts_with("53") => ErrorKind::Transient,
        _ => return None,
    };
    Some(Meaning {
        kind,
        summary: "",
        hint: "",
    })
}

/// What an HTTP status means that came without an answer of Snowflake's. `host` is where it came from.
pub(crate) fn http_status(status: StatusCode, host: &str) -> Error {
    let number = status.as_u16();
    match number {
        300..=399 => Error::new(
            ErrorKind::Configuration,
            format!("{host} redirects to another address (HTTP {number}), which is never followed"),
        )
        .with_hint("Check the account identifier: use the address that the redirect leads to."),
        401 | 403 | 404 => Error::new(
            ErrorKind::Configuration,
            format!("{host} does not serve this Snowflake account (HTTP {number})"),
        )
        .with_hint(
            "Check the account identifier. If it is right, a proxy, a private link or a network rule stands between.",
        ),
        408 | 429 => Error::new(ErrorKind::Transient, format!("{host} asks to slow down (HTTP {number})")),
        500..=599 => Error::new(ErrorKind::Transient, format!("Snowflake is not available at {host} (HTTP {number})")),
        _ => Error::new(ErrorKind::Internal, format!("{host} answered with HTTP {number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_code(code: &str) -> Error {
        refusal(&Refusal {
            code: Some(code),
            sqlstate: Some("00000"),
            message: Some("server said 'so'."),
            query_id: Some("01ab"),
            role: Some("LOADER"),
            ..Refusal::default()
        })
    }

    #[test]
    fn every_known_code_has_its_kind() {
        use ErrorKind::*;
        for (kind, codes) in [
            (
                Credentials,
                "390100 390139 390191 390309 390144 394300 394302 394304 394305 394306 394307 394400 394508 390303 390318 390401",
            ),
            (
                Configuration,
                "390189 390201 390420 390422 390432 000606 000630 000904 002002 002003 002043 003001",
            ),
            (
                Transient,
                "390104 390110 390111 390112 390113 390114 390115 390195 394303 000625",
            ),
            (
                Data,
                "002023 100035 100038 100039 100040 100046 100067 100069 100071 100072 100078 100082 100090 200001",
            ),
            (Internal, "390101 390400 394301 001003 002019"),
            (Canceled, "000604"),
        ] {
            for code in codes.split(' ') {
                let error = of_code(code);
                assert_eq!(error.kind(), kind, "{code}");
                assert_eq!(error.code(), Some(code));
                assert_eq!(error.query_id(), Some("01ab"));
                assert!(
                    !error.message().is_empty() && !error.message().contains('{'),
                    "{code}"
                );
                assert!(
                    !error.message().ends_with('.'),
                    "{code}: {}",
                    error.message()
                );
                if let Some(hint) = error.hint() {
                    assert!(hint.ends_with('.') && !hint.contains('{'), "{code}: {hint}");
                }
                if matches!(kind, Credentials | Configuration) && !["390401"].contains(&code) {
                    assert!(error.hint().is_some(), "{code} tells nobody what to do");
                }
            }
        }
    }

    #[test]
    fn messages_say_what_to_do() {
        let denied = refusal(&Refusal {
            code: Some("003001"),
            sqlstate: Some("42501"),
            message: Some(
                "SQL access control error:\nInsufficient privileges to operate on schema 'REPORTS'.",
            ),
            role: Some("ANALYST"),
            ..Refusal::default()
        });
        assert_eq!(
            denied.message(),
            "permission denied: SQL access control error: Insufficient privileges to operate on schema 'REPORTS'"
        );
        assert_eq!(
            denied.hint(),
            Some("Grant the missing privilege on the object to role \"ANALYST\".")
        );
        assert!(
            of_code("390100")
                .message()
                .starts_with("Snowflake rejected the user name or password")
        );
    }

    #[test]
    fn data_errors_do_not_repeat_values() {
        let error = refusal(&Refusal {
            code: Some("100038"),
            message: Some(
                "Numeric value 'jane@example.com' is not recognized\n  File 'part-00000.parquet', row 3, column \"T\"[\"A\":1]",
            ),
            ..Refusal::default()
        });
        assert!(!error.message().contains("jane"), "{error}");
        assert!(error.message().contains("column \"T\"[\"A\":1]"), "{error}");
    }

    #[test]
    fn unknown_codes_follow_the_state() {
        let kind = |code, sqlstate| {
            refusal(&Refusal {
                code,
                sqlstate,
                ..Refusal::default()
            })
            .kind()
        };
        assert_eq!(kind(Some("100999"), Some("22023")), ErrorKind::Data);
        assert_eq!(kind(Some("000999"), Some("57014")), ErrorKind::Canceled);
        assert_eq!(kind(Some("300002"), Some("XX000")), ErrorKind::Internal);
        assert_eq!(kind(Some("390999"), None), ErrorKind::Credentials);
        assert_eq!(kind(Some("000999"), None), ErrorKind::Configuration);
        assert_eq!(kind(None, None), ErrorKind::Configuration);
    }

    #[test]
    fn next_actions() {
        for action in [
            "PWD_CHANGE",
            "EXT_AUTHN_DUO_ALL",
            "EXT_AUTHN_DUO_PUSH_N_PASSCODE",
        ] {
            let error = refusal(&Refusal {
                next_action: Some(action),
                ..Refusal::default()
            });
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn http_statuses() {
        for (status, kind) in [
            (302, ErrorKind::Configuration),
            (307, ErrorKind::Configuration),
            (400, ErrorKind::Internal),
            (401, ErrorKind::Configuration),
            (403, ErrorKind::Configuration),
            (404, ErrorKind::Configuration),
            (408, ErrorKind::Transient),
            (422, ErrorKind::Internal),
            (429, ErrorKind::Transient),
            (500, ErrorKind::Transient),
            (502, ErrorKind::Transient),
            (503, ErrorKind::Transient),
            (504, ErrorKind::Transient),
        ] {
            let error = http_status(StatusCode::from_u16(status).unwrap(), "host");
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.message().contains(&status.to_string()));
        }
    }
}
