//! Every code, state and status that is known, with what it means and what the user is told.

use super::*;

/// A refusal of a session that works with names of all kinds.
fn of_code(code: &str) -> Error {
    refusal(&Refusal {
        code: Some(code),
        sqlstate: Some("00000"),
        message: Some("server said 'so'."),
        query_id: Some("01ab"),
        defaults: Some(&defaults()),
        ..Refusal::default()
    })
}

fn defaults() -> Defaults {
    Defaults {
        role: Some("LOADER".into()),
        warehouse: Some("WH".into()),
        database: Some("DB".into()),
        schema: Some("REPORTS".into()),
    }
}

/// Code, what to do next, words of the message, and of the hint; an empty hint means that there must be none.
#[rustfmt::skip]
const CODES: &[(&str, ErrorKind, &str, &str)] = {
    use ErrorKind::*;
    &[
        ("390100", Credentials, "rejected the user name or password", "further tries with a wrong one lock the user"),
        ("390101", Internal, "did not understand the login", ""),
        ("390104", SessionEnded, "session has ended", ""),
        ("390110", SessionEnded, "session has ended", ""),
        ("390111", SessionEnded, "session has ended", ""),
        ("390112", SessionEnded, "session has expired", ""),
        ("390113", SessionEnded, "session has ended", ""),
        ("390114", SessionEnded, "session has ended", ""),
        ("390115", SessionEnded, "session has ended", ""),
        ("390195", SessionEnded, "session has ended", ""),
        ("390139", Credentials, "identity provider", "key pair or a programmatic access token"),
        ("390191", Credentials, "identity provider", "key pair or a programmatic access token"),
        ("390309", Credentials, "identity provider", "key pair or a programmatic access token"),
        ("390144", Credentials, "refused the key pair", "SYSTEM$GET_LOGIN_FAILURE_DETAILS"),
        ("394300", Credentials, "does not know the user of the key pair", "LOGIN_NAME"),
        ("394301", Internal, "did not understand the login", ""),
        ("394302", Credentials, "time of this server as wrong", "NTP"),
        ("394303", Transient, "took too long to arrive", "clock"),
        ("394304", Credentials, "belongs to another private key", "snowflake_bridge.public_key()"),
        ("394305", Credentials, "algorithm of the key pair", "RSA key of at least 2048 bits"),
        ("394306", Credentials, "signature of the key pair", "snowflake_bridge.public_key()"),
        ("394307", Credentials, "names another account", "account identifier"),
        ("394400", Credentials, "programmatic access token", "make a new one"),
        ("394508", Credentials, "second factor", "key pair or a programmatic access token"),
        ("390189", Configuration, "role \"LOADER\" does not exist or is not granted", "GRANT ROLE"),
        ("390201", Configuration, "warehouse \"WH\" or database \"DB\" or schema \"REPORTS\" does not exist, or role \"LOADER\" may not use it", "grant USAGE on it to role \"LOADER\""),
        ("390303", Credentials, "refused the OAuth token", "new access token"),
        ("390318", Credentials, "refused the OAuth token", "new access token"),
        ("390400", Internal, "did not understand the login", ""),
        ("390401", Credentials, "refused the login: server said", ""),
        ("390420", Configuration, "this server's address", "network policy"),
        ("390422", Configuration, "this server's address", "network policy"),
        ("390432", Configuration, "network policy", "attach a network policy"),
        ("000604", Canceled, "canceled in Snowflake", ""),
        ("000606", Configuration, "no warehouse", "grant USAGE on it to role \"LOADER\""),
        ("000625", Transient, "locked by too many others", ""),
        ("000630", Configuration, "statement timeout", "snowflake_bridge.statement_timeout"),
        ("001003", Internal, "server said", ""),
        ("002002", Configuration, "server said", "another name"),
        ("002003", Configuration, "server said", "does not exist, or role \"LOADER\" has no privilege"),
        ("002019", Internal, "server said", ""),
        ("002023", Data, "another type than the result", "change the column's type"),
        ("002043", Configuration, "server said", "role \"LOADER\" has no privilege"),
        ("000904", Configuration, "server said", "A column is missing"),
        ("003001", Configuration, "permission denied", "to role \"LOADER\""),
        ("100035", Data, "cannot be converted", ""),
        ("100040", Data, "cannot be converted", ""),
        ("100038", Data, "cannot be converted", ""),
        ("100072", Data, "NULL meets a column that is NOT NULL", "Drop the NOT NULL"),
        ("100078", Data, "too long for its column", "Widen the column"),
        ("100082", Data, "larger than Snowflake can hold", ""),
        ("100067", Data, "larger than Snowflake can hold", ""),
        ("100090", Data, "same key", "key columns that are unique"),
        ("100046", Data, "too large for its column", "another table"),
        ("100039", Data, "too large for its column", "another table"),
        ("100069", Data, "not valid JSON", ""),
        ("100071", Data, "cannot be converted to the type of its column", ""),
        ("200001", Data, "violates a constraint", ""),
    ]
};

#[test]
fn every_known_code() {
    for &(code, kind, message, hint) in CODES {
        let error = of_code(code);
        assert_eq!(error.kind(), kind, "{code}");
        assert_eq!(error.code(), Some(code));
        assert_eq!(error.query_id(), Some("01ab"));
        assert!(
            error.message().contains(message),
            "{code}: {}",
            error.message()
        );
        assert!(
            !error.message().contains('{') && !error.message().ends_with('.'),
            "{code}: {}",
            error.message()
        );
        match error.hint() {
            None => assert_eq!(hint, "", "{code} tells nobody what to do"),
            Some(said) => {
                assert!(!hint.is_empty() && said.contains(hint), "{code}: {said}");
                assert!(said.ends_with('.') && !said.contains('{'), "{code}: {said}");
            }
        }
        assert_eq!(
            ends_session(code),
            kind == ErrorKind::SessionEnded,
            "{code}"
        );
    }
}

#[test]
fn names_that_are_not_there_are_named() {
    let missing = |message: &str, defaults: &Defaults| {
        let error = refusal(&Refusal {
            code: Some("390201"),
            message: Some(message),
            defaults: Some(defaults),
            ..Refusal::default()
        });
        (error.message().to_owned(), error.hint().unwrap().to_owned())
    };
    let (message, hint) = missing(
        "The requested warehouse does not exist or not authorized.",
        &defaults(),
    );
    assert!(
        message.starts_with("warehouse \"WH\" does not exist, or role \"LOADER\" may not use it: "),
        "{message}"
    );
    assert_eq!(
        hint,
        "Correct the name, or grant USAGE on it to role \"LOADER\"."
    );
    let (message, hint) = missing("No.", &Defaults::default());
    assert!(
        message.starts_with(
            "the warehouse, database or schema does not exist, or the user's default role may not"
        ),
        "{message}"
    );
    assert!(hint.ends_with("to the user's default role."), "{hint}");
}

/// There are no codes for these; under whatever code they come, the user learns what to do.
#[test]
fn what_is_said_in_words_only() {
    for (message, kind, summary) in [
        (
            "Your user account has been temporarily locked due to too many failed attempts.",
            ErrorKind::Credentials,
            "locked the user",
        ),
        (
            "User access disabled. Contact your local system administrator.",
            ErrorKind::Credentials,
            "user is disabled",
        ),
        (
            "Specified password has expired.",
            ErrorKind::Credentials,
            "password of the Snowflake user has expired",
        ),
        (
            "Multi-factor authentication is required for this account.",
            ErrorKind::Credentials,
            "second factor",
        ),
        (
            "Warehouse 'WH' is suspended.",
            ErrorKind::Configuration,
            "the warehouse is suspended",
        ),
        (
            "Warehouse 'WH' cannot be resumed because resource monitor 'M' has exceeded its quota.",
            ErrorKind::Configuration,
            "used up its quota",
        ),
    ] {
        let (asked, codes) = match kind {
            ErrorKind::Credentials => (Asked::Login, [None, Some("390100"), Some("390401")]),
            _ => (Asked::Statement, [None, Some("390999"), Some("090073")]),
        };
        for code in codes {
            let error = refusal(&Refusal {
                asked,
                code,
                message: Some(message),
                ..Refusal::default()
            });
            assert_eq!(error.kind(), kind, "{message}");
            assert!(
                error.message().starts_with("Snowflake") || error.message().starts_with("the "),
                "{error}"
            );
            assert!(error.message().contains(summary), "{error}");
            assert!(
                error.hint().is_some_and(|hint| hint.ends_with('.')),
                "{error}"
            );
        }
        // Words that a cell holds change nothing, whoever says them.
        let in_a_value = format!("Value '{message}' is odd");
        let statement = refusal(&Refusal {
            code: Some("100132"),
            sqlstate: Some("22000"),
            message: Some(&in_a_value),
            ..Refusal::default()
        });
        assert_eq!(statement.kind(), ErrorKind::Data, "{statement}");
        let unknown = refusal(&Refusal {
            code: Some("090999"),
            message: Some(&in_a_value.replace("'WH' ", "")),
            ..Refusal::default()
        });
        assert!(unknown.hint().is_none(), "{unknown}");
        // Where there is a code, words change nothing.
        let coded = refusal(&Refusal {
            code: Some("003001"),
            message: Some(message),
            ..Refusal::default()
        });
        assert_eq!(coded.kind(), ErrorKind::Configuration);
        assert!(coded.message().starts_with("permission denied"));
    }
}

#[test]
fn pauses_in_seconds_and_as_dates() {
    let asked = |value: &str| {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
        with_retry_after(Error::new(ErrorKind::Transient, "busy"), &headers).retry_after()
    };
    assert_eq!(asked(" 120"), Some(Duration::from_secs(120)));
    let pause = asked(&(Utc::now() + Duration::from_secs(3600)).to_rfc2822()).unwrap();
    assert!(
        pause > Duration::from_secs(3500) && pause <= Duration::from_secs(3600),
        "{pause:?}"
    );
    for long in [
        u64::MAX.to_string().as_str(),
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        assert_eq!(asked(long), Some(MAX_PAUSE), "{long}");
    }
    for none in ["Fri, 31 Oct 2025 06:26:51 GMT", "soon", "-1", ""] {
        assert_eq!(asked(none), None, "{none}");
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
        defaults: Some(&Defaults {
            role: Some("ANALYST".into()),
            ..Defaults::default()
        }),
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
    for (code, said) in [
        (
            "100038",
            "Numeric value 'jane@example.com' is not recognized",
        ),
        (
            "100090",
            "Duplicate row detected during DML action\nRow Values: [4711, \"jane\", \"DE89370400440532013000\"]",
        ),
        (
            "100071",
            "Failed to cast variant value {\"name\":\"jane\"} to FIXED",
        ),
        (
            "100069",
            "Error parsing JSON: unknown keyword \"jane\", pos 5",
        ),
        (
            "100046",
            "Number out of representable range: type FIXED[SB16](38,0), value 4111111111111111",
        ),
        ("100999", "value jane"),
    ] {
        let told = |place: &str| {
            refusal(&Refusal {
                code: Some(code),
                sqlstate: Some("22000"),
                message: Some(&format!("{said}{place}")),
                ..Refusal::default()
            })
        };
        for error in [
            told(""),
            told(
                "\n  File 'a/part-00000.parquet', line 1, character 1\n  Row 3, column \"T\"[\"A\":1]",
            ),
        ] {
            assert_eq!(error.kind(), ErrorKind::Data, "{code}");
            for value in ["jane", "4711", "DE89", "4111111111111111"] {
                assert!(!error.to_string().contains(value), "{error}");
            }
        }
        let placed =
            told("\n  File 'a/part-00000.parquet', line 1\n  Row 3, column \"T\"[\"A\":1]");
        assert!(
            placed
                .message()
                .ends_with(": file a/part-00000.parquet, row 3, column \"A\""),
            "{placed}"
        );
    }
    // Errors of compilation speak of types.
    let types = refusal(&Refusal {
        code: Some("002023"),
        message: Some("expecting VARCHAR(10) but got NUMBER(38,0) for column A"),
        ..Refusal::default()
    });
    assert!(types.message().ends_with("for column A"), "{types}");
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
    assert_eq!(kind(Some("000999"), Some("57014")), ErrorKind::Transient);
    assert_eq!(kind(Some("300002"), Some("XX000")), ErrorKind::Internal);
    assert_eq!(kind(Some("390999"), None), ErrorKind::Configuration);
    assert_eq!(kind(Some("000999"), None), ErrorKind::Configuration);
    assert_eq!(kind(None, None), ErrorKind::Configuration);
}

#[test]
fn a_login_that_is_refused_is_not_tried_again() {
    for (code, message) in [
        (None, None),
        (Some("123456"), Some("no")),
        (None, Some("Incorrect username or password was specified.")),
        (Some("390999"), Some("no")),
    ] {
        let error = refusal(&Refusal {
            asked: Asked::Login,
            code,
            message,
            sqlstate: Some("08001"),
            ..Refusal::default()
        });
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
    }
}

#[test]
fn next_actions() {
    for action in [
        "PWD_CHANGE",
        "EXT_AUTHN_DUO_ALL",
        "EXT_AUTHN_DUO_PUSH_N_PASSCODE",
    ] {
        let error = refusal(&Refusal {
            asked: Asked::Login,
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
        (429, ErrorKind::Throttled),
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
