//! From what Snowflake answers, in codes, states and HTTP status, to what the user is told and what happens next.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use http::header::{self, HeaderMap};

use super::text;
use crate::config::ConnectionSettings;
use crate::{Error, ErrorKind};

/// The session token has expired and the master token renews it.
pub(crate) const SESSION_EXPIRED: &str = "390112";
/// A statement still runs, and its answer is to be fetched from another path.
pub(crate) const IN_PROGRESS: [&str; 2] = ["333333", "333334"];
/// The key pair is not the user's.
pub(crate) const KEY_PAIR_REFUSED: &str = "390144";
/// COPY names a file that is not in the stage.
pub(crate) const STAGED_FILE_MISSING: &str = "091016";
/// The statement that should be aborted does not run: it is over, or has not begun.
pub(crate) const NOT_EXECUTING: &str = "000605";

/// What was refused, which decides what is made of words and of codes that are not known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To be let in.
    Login,
    /// Anything in a session.
    #[default]
    Statement,
}

/// A refusal as Snowflake worded it, with what is known about who was refused.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub(crate) asked: Asked,
    pub(crate) code: Option<&'a str>,
    pub(crate) sqlstate: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) query_id: Option<&'a str>,
    /// What a login would have to do next, such as `PWD_CHANGE`.
    pub(crate) next_action: Option<&'a str>,
    /// What the session was to work with.
    pub(crate) defaults: Option<&'a Defaults>,
}

/// The names that a session works with, as far as they are known. Snowflake's own words often leave them out.
#[derive(Debug, Default, Clone)]
pub(crate) struct Defaults {
    pub(crate) role: Option<String>,
    pub(crate) warehouse: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) schema: Option<String>,
}

impl From<&ConnectionSettings> for Defaults {
    fn from(settings: &ConnectionSettings) -> Self {
        Self {
            role: settings.role.clone(),
            warehouse: settings.warehouse.clone(),
            database: settings.database.clone(),
            schema: settings.schema.clone(),
        }
    }
}

impl Defaults {
    /// How sentences name the role.
    fn role(&self) -> String {
        match &self.role {
            Some(role) => format!("role {role:?}"),
            None => "the user's default role".to_owned(),
        }
    }

    /// Which of the names Snowflake refused: the kind stands in its words only, and there is one code for all.
    fn refused_name(&self, message: &str) -> String {
        let message = message.to_lowercase();
        let named: Vec<_> = [
            ("warehouse", &self.warehouse),
            ("database", &self.database),
            ("schema", &self.schema),
        ]
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, name.as_ref()?)))
        .collect();
        let mentioned = named.iter().filter(|(kind, _)| message.contains(kind));
        let written: Vec<_> = match mentioned.count() {
            0 => named.iter().collect(),
            _ => named
                .iter()
                .filter(|(kind, _)| message.contains(kind))
                .collect(),
        };
        if written.is_empty() {
            return "the warehouse, database or schema".to_owned();
        }
        let written: Vec<_> = written
            .into_iter()
            .map(|(kind, name)| format!("{kind} {name:?}"))
            .collect();
        written.join(" or ")
    }
}

/// Whether a code that a statement ends with says that only another login helps: session and master token are of no use
/// any more, or renewing did not last.
pub(crate) fn ends_session(code: &str) -> bool {
    meaning(code).is_some_and(|meaning| meaning.kind == ErrorKind::SessionEnded)
}

/// Whether a login with a key pair may succeed with a new token: the server saw it too early or too late.
pub(crate) fn is_stale_jwt(code: &str) -> bool {
    matches!(code, "394302" | "394303")
}

/// Whether a login with OAuth may succeed with another access token: this one is unknown or has expired.
pub(crate) fn is_stale_oauth_token(code: &str) -> bool {
    matches!(code, "390303" | "390318")
}

/// What a refusal means. The kind follows from code, state and next action, and from the text only for what has no code
/// of its own.
pub(crate) fn refusal(refusal: &Refusal<'_>) -> Error {
    let code = refusal.code.unwrap_or_default();
    let meaning = match refusal.asked {
        Asked::Login => at_login(refusal, code),
        Asked::Statement => at_statement(refusal, code),
    };
    let said = match refusal.message {
        Some(message) if meaning.kind == ErrorKind::Data && !is_compilation(code) => {
            text::place(message)
        }
        Some(message) if meaning.kind == ErrorKind::Data => text::without_values(message),
        Some(message) => text::clean(message),
        None => String::new(),
    };
    let unknown = Defaults::default();
    let defaults = refusal.defaults.unwrap_or(&unknown);
    let fill = |text: &str| {
        text.replace("{role}", &defaults.role()).replace(
            "{name}",
            &defaults.refused_name(refusal.message.unwrap_or_default()),
        )
    };
    let message = match (fill(meaning.summary), said.as_str()) {
        (summary, "") if summary.is_empty() => "Snowflake refused without saying why".to_owned(),
        (summary, said) if summary.is_empty() => said.to_owned(),
        (summary, "") => summary,
        (summary, said) => format!("{summary}: {said}"),
    };
    let mut error = Error::new(meaning.kind, message);
    if !meaning.hint.is_empty() {
        error = error.with_hint(fill(meaning.hint));
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

/// Whoever is not let in is tried again only once somebody has changed something: five wrong tries lock a user out.
fn at_login(refusal: &Refusal<'_>, code: &str) -> Meaning {
    meaning(code)
        .filter(|_| !GENERIC.contains(&code))
        .or_else(|| in_words_at_login(refusal.message?))
        .or_else(|| meaning(code))
        .or_else(|| next_action(refusal.next_action?))
        .unwrap_or(Meaning {
            kind: ErrorKind::Credentials,
            summary: "",
            hint: "",
        })
}

fn at_statement(refusal: &Refusal<'_>, code: &str) -> Meaning {
    meaning(code)
        .or_else(|| by_sqlstate(refusal.sqlstate?))
        .or_else(|| in_words_of_warehouses(refusal.message?))
        .unwrap_or(Meaning {
            kind: ErrorKind::Configuration,
            summary: "",
            hint: "",
        })
}

/// Errors of compilation speak of types and names, those of execution of values.
fn is_compilation(code: &str) -> bool {
    code.starts_with('0')
}

struct Meaning {
    kind: ErrorKind,
    /// Stands before the server's own words; empty where those say it best.
    summary: &'static str,
    /// A full sentence; `{role}` and `{name}` are replaced, here and in the summary. Empty where there is nothing to do.
    hint: &'static str,
}

/// Codes under which Snowflake also files what has no code of its own.
const GENERIC: [&str; 2] = ["390100", "390401"];

#[rustfmt::skip] // One row for each code, as in a table.
fn meaning(code: &str) -> Option<Meaning> {
    use ErrorKind::{
        Canceled, Configuration, Credentials, Data, Internal, SessionEnded, Transient,
    };
    let (kind, summary, hint) = match code {
        // Login and session.
        "390100" => (Credentials, "Snowflake rejected the user name or password", "Correct the user name or password; further tries with a wrong one lock the user for 15 minutes. Users of TYPE = SERVICE cannot use a password: give them a key pair or a programmatic access token."),
        "390101" | "390400" | "394301" => (Internal, "Snowflake did not understand the login", ""),
        "390104" | "390110" | "390111" | "390113" | "390114" | "390115" | "390195" => (SessionEnded, "the Snowflake session has ended", ""),
        SESSION_EXPIRED => (SessionEnded, "the Snowflake session has expired", ""),
        "390139" | "390191" | "390309" => (Credentials, "Snowflake wants this user to log in through an identity provider", "Use a key pair or a programmatic access token instead."),
        KEY_PAIR_REFUSED => (Credentials, "Snowflake refused the key pair", "Check that the user's RSA_PUBLIC_KEY is the one that snowflake_bridge.public_key() prints, and that account and user name (LOGIN_NAME) are right. SYSTEM$GET_LOGIN_FAILURE_DETAILS with the id in the message tells an administrator more."),
        "394300" => (Credentials, "Snowflake does not know the user of the key pair", "Give the user's LOGIN_NAME, which DESCRIBE USER shows."),
        "394302" => (Credentials, "Snowflake sees the time of this server as wrong", "Set the clock of this server, for instance with NTP: a key pair login is valid for 60 seconds."),
        "394303" => (Transient, "the key pair login took too long to arrive", "Check the clock of this server."),
        "394304" => (Credentials, "the public key of the Snowflake user belongs to another private key", "Set the key with the statement that snowflake_bridge.public_key() prints."),
        "394305" => (Credentials, "Snowflake does not accept the algorithm of the key pair", "Use an RSA key of at least 2048 bits."),
        "394306" => (Credentials, "the signature of the key pair login is wrong", "Set the public key again with the statement that snowflake_bridge.public_key() prints."),
        "394307" => (Credentials, "the key pair login names another account", "Correct the account identifier."),
        "394400" => (Credentials, "Snowflake refused the programmatic access token", "The token is wrong, expired or disabled: make a new one with ALTER USER ... ADD PROGRAMMATIC ACCESS TOKEN."),
        "394508" => (Credentials, "Snowflake asks for a second factor", "A bridge that works unattended cannot enter passcodes: use a key pair or a programmatic access token."),
        "390189" => (Configuration, "{role} does not exist or is not granted to the user", "Correct the role, or run GRANT ROLE ... TO USER ... in Snowflake."),
        "390201" => (Configuration, "{name} does not exist, or {role} may not use it", "Correct the name, or grant USAGE on it to {role}."),
        "390303" | "390318" => (Credentials, "Snowflake refused the OAuth token", "Bring a new access token, or give the client that fetches them: oauth_client_id and oauth_client_secret."),
        "390401" => (Credentials, "Snowflake refused the login", ""),
        "390420" | "390422" => (Configuration, "Snowflake does not accept logins from this server's address", "Ask a Snowflake administrator to add the address to the network policy."),
        "390432" => (Configuration, "Snowflake wants a network policy for this user", "Ask a Snowflake administrator to attach a network policy to the user that allows this server's address."),
        // Statements.
        "000604" => (Canceled, "the statement was canceled in Snowflake", ""),
        "000606" => (Configuration, "the session has no warehouse", "Name a warehouse in the configuration, and grant USAGE on it to {role}."),
        "000625" => (Transient, "the table is locked by too many others", ""),
        "000630" => (Configuration, "Snowflake's statement timeout was reached", "Raise snowflake_bridge.statement_timeout, or use a larger warehouse."),
        "001003" | "002019" => (Internal, "", ""),
        "000904" => (Configuration, "", "A column is missing or is spelled in another case; compare the table with the result's columns."),
        "002002" => (Configuration, "", "Choose another name, or drop the object that has it."),
        "002003" | "002043" => (Configuration, "", "The object does not exist, or {role} has no privilege on it: correct the name, or grant the privilege."),
        "003001" => (Configuration, "permission denied", "Grant the missing privilege on the object to {role}."),
        "002023" => (Data, "a column of the table has another type than the result", "Use another table, or change the column's type."),
        STAGED_FILE_MISSING => (Transient, "a file is not in the stage any more", ""),
        "100035" | "100040" | "100038" => (Data, "a value cannot be converted to the type of its column", ""),
        "100039" | "100046" => (Data, "a number is too large for its column", "Widen the column in Snowflake, or load into another table (snowflake_table_name)."),
        "100069" => (Data, "a value is not valid JSON", ""),
        "100071" => (Data, "a JSON value cannot be converted to the type of its column", ""),
        "100072" => (Data, "a NULL meets a column that is NOT NULL", "Drop the NOT NULL of the column, or fill the value in the result."),
        "100078" => (Data, "a string is too long for its column", "Widen the column."),
        "100082" | "100067" => (Data, "a value is larger than Snowflake can hold", ""),
        "100090" => (Data, "several rows have the same key", "Choose key columns that are unique in the result."),
        "200001" => (Data, "a row violates a constraint of the table", ""),
        _ => return None,
    };
    Some(Meaning { kind, summary, hint })
}

/// What Snowflake says in words only. Its codes for these are in no documentation and no driver.
#[rustfmt::skip]
fn in_words_at_login(message: &str) -> Option<Meaning> {
    let message = message.to_lowercase();
    let says = |words: &str| message.contains(words);
    let (summary, hint) = if says("temporarily locked") {
        ("Snowflake has locked the user for some minutes", "Wait 15 minutes, or have an administrator run ALTER USER ... SET MINS_TO_UNLOCK = 0; and correct the credentials, lest it happen again.")
    } else if says("access disabled") || says("access is disabled") {
        ("the Snowflake user is disabled", "Ask a Snowflake administrator to run ALTER USER ... SET DISABLED = FALSE.")
    } else if says("password has expired") {
        ("the password of the Snowflake user has expired", "Log in to Snowflake once and change the password, or use a key pair or a programmatic access token.")
    } else if says("multi-factor authentication is required") {
        ("Snowflake asks for a second factor", "A bridge that works unattended cannot confirm one: use a key pair or a programmatic access token.")
    } else {
        return None;
    };
    Some(Meaning { kind: ErrorKind::Credentials, summary, hint })
}

/// The same for statements. What stands in quotes is somebody's, and decides nothing.
#[rustfmt::skip]
fn in_words_of_warehouses(message: &str) -> Option<Meaning> {
    let message = text::without_values(message).to_lowercase();
    let says = |words: &str| message.contains(words);
    let (summary, hint) = if says("cannot be resumed because resource monitor") {
        ("the warehouse has used up its quota", "Raise the quota of the resource monitor, wait for its next interval, or name another warehouse.")
    } else if says("warehouse") && says("is suspended") {
        ("the warehouse is suspended", "Run ALTER WAREHOUSE ... SET AUTO_RESUME = TRUE in Snowflake, or resume the warehouse.")
    } else {
        return None;
    };
    Some(Meaning { kind: ErrorKind::Configuration, summary, hint })
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
    let (kind, summary) = match sqlstate {
        // Lock waits and timeouts have it too; only the code of a cancellation says that somebody asked for it.
        "57014" => (ErrorKind::Transient, ""),
        _ if sqlstate.starts_with("22") || sqlstate.starts_with("23") => {
            (ErrorKind::Data, "Snowflake refused a value")
        }
        _ if sqlstate.starts_with("XX") => (ErrorKind::Internal, ""),
        _ if sqlstate.starts_with("08") || sqlstate.starts_with("53") => (ErrorKind::Transient, ""),
        _ => return None,
    };
    Some(Meaning {
        kind,
        summary,
        hint: "",
    })
}

/// What an HTTP status means that came without an answer of Snowflake's. `host` is where it came from.
pub(crate) fn http_status(status: StatusCode, host: &str) -> Error {
    let number = status.as_u16();
    match number {
        300..=399 => Error::new(
            ErrorKind::Configuration,
            format!("{host} redirects to an address that requests must not go to (HTTP {number})"),
        )
        .with_hint("Check the account identifier: use the address that the redirect leads to."),
        401 | 403 | 404 => Error::new(
            ErrorKind::Configuration,
            format!("{host} does not serve this Snowflake account (HTTP {number})"),
        )
        .with_hint(
            "Check the account identifier. If it is right, a proxy, a private link or a network rule stands between.",
        ),
        429 => Error::new(ErrorKind::Throttled, format!("{host} asks to slow down (HTTP {number})")),
        408 => Error::new(ErrorKind::Transient, format!("{host} waited in vain for the request (HTTP {number})")),
        500..=599 => Error::new(ErrorKind::Transient, format!("Snowflake is not available at {host} (HTTP {number})")),
        _ => Error::new(ErrorKind::Internal, format!("{host} answered with HTTP {number}")),
    }
}

/// The longest pause that a server can ask for; by then the trouble is over, or is another.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// Adds the pause that an answer asks for, in seconds or as a date, up to [`MAX_PAUSE`].
pub(crate) fn with_retry_after(error: Error, headers: &HeaderMap) -> Error {
    let asked = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    let pause = asked.and_then(|asked| match asked.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(asked).ok()?;
            (until.to_utc() - Utc::now()).to_std().ok()
        }
    });
    match pause {
        Some(pause) => error.with_retry_after(pause.min(MAX_PAUSE)),
        None => error,
    }
}

#[cfg(test)]
mod tests;
