//! What a client of Snowflake's driver protocol has to do, item by item. Cases name the items that they prove.

/// Name, and what it asks for.
type Item = (&'static str, &'static str);

/// What cases of this suite prove.
#[rustfmt::skip]
pub const ITEMS: &[Item] = &[
    ("login.password", "user name and password"),
    ("login.passcode", "a password with the one-time code of a second factor"),
    ("login.key-pair", "a token signed by an RSA key, of this moment, for this account and user"),
    ("login.key-pair-encrypted", "the same with a key that a passphrase protects"),
    ("login.access-token", "a programmatic access token"),
    ("login.oauth-token", "an OAuth access token that somebody else fetched"),
    ("login.oauth-client", "an OAuth client that fetches its own, with a scope from the role"),
    ("login.oauth-renewal", "one more token and login when the first is unknown or expired"),
    ("login.names-as-given", "warehouse, database, schema and role are sent as given, quoted ones too"),
    ("login.defaults-validated", "a wrong warehouse, database, schema or role is an error that names it"),
    ("login.application", "the client says who it is, and asks for JSON results"),
    ("login.parameters", "time zone, quoting, timeouts, detached queries: set for the session at login"),
    ("login.refusals", "wrong secrets are tried once; every refusal says what to do"),
    ("login.next-action", "answers that want somebody at a screen are refusals"),
    ("login.locked", "a locked or disabled user is told so"),
    ("login.network-policy", "addresses that the account does not accept"),
    ("login.network-policy-known", "whether a network policy holds for the user, or that this is not told"),
    ("login.unknown-account", "a page of HTML instead of an answer"),
    ("login.retries", "throttling, server errors and lost connections are tried again, with the same request id"),
    ("login.redirects", "307 and 308 are followed to hosts of the service, and nowhere else"),
    ("session.renewal", "an expired session is renewed and keeps temporary objects and its transaction"),
    ("session.one-renewal", "there is one renewal at a time"),
    ("session.end", "a session that is gone is told from a statement that failed"),
    ("session.master-expired", "a master token that expired ends the session"),
    ("session.heartbeat", "signs of life while a session is in use"),
    ("session.close", "the end is told, whatever the answer"),
    ("session.pool", "a released session serves the next upload"),
    ("session.affinity", "the newest x-snowflake-session goes back with each request"),
    ("session.query-tag", "statements carry the query tag"),
    ("statement.request-id", "a repeated statement keeps its id and runs once; tries are counted and explained"),
    ("statement.gzip", "bodies of requests are compressed"),
    ("statement.parked", "statements that outlast their request are polled at the given address"),
    ("statement.parked-without-url", "and by their id where there is none"),
    ("statement.parked-async", "also when they are called asynchronous, and when success is false"),
    ("statement.parked-renewal", "a session may expire meanwhile"),
    ("statement.parked-host", "polls stay on the account's host"),
    ("statement.abort", "a statement that nobody waits for is ended on the server, parked or not"),
    ("statement.errors", "code, SQLSTATE, query id, message and what to do about it"),
    ("statement.damaged", "cut off, empty and HTML answers are tried again, and endless ones refused"),
    ("result.json", "rows, NULLs and names of columns"),
    ("result.chunks", "parts of a result, with the headers that the answer gives"),
    ("result.chunks-key", "or with the key that it gives instead"),
    ("result.chunks-errors", "parts that fail are tried again, those that expired are told"),
    ("result.no-arrow", "a result in another format is refused"),
    ("put.statement", "the file is named and never opened by what the server says"),
    ("put.amazon", "S3: path and metadata, signature, digest"),
    ("put.amazon-parts", "S3: multipart"),
    ("put.azure", "Azure: shared access signature with and without question mark, metadata"),
    ("put.azure-parts", "Azure: blocks"),
    ("put.google-token", "Google: downscoped token"),
    ("put.google-presigned", "Google: presigned address"),
    ("put.encryption-128", "files under keys of 128 bits"),
    ("put.encryption-256", "files under keys of 256 bits"),
    ("put.unencrypted", "stages that encrypt on the server's side"),
    ("put.renewal", "credentials that expired are replaced by the same PUT, in the middle of parts too"),
    ("put.retries", "throttling and errors of the storage"),
    ("put.refused", "storage, ciphers and hosts that are not supported"),
    ("load.copy", "COPY of staged files, and its result by name"),
    ("load.transaction", "BEGIN, COPY, COMMIT and ROLLBACK in one session"),
    ("load.again", "a repeated load loads once"),
    ("network.cut", "connections cut at any byte of a request"),
    ("network.black-hole", "a peer that says nothing is given up"),
    ("network.slow", "one that is slow and moves is not"),
    ("network.throttled", "429 and 503 with Retry-After"),
    ("network.permanent", "400, 403, 404 and 422 are not tried again"),
    ("network.keep-alive", "connections that the server closed meanwhile"),
    ("network.lost-answer", "an answer lost at COPY and at COMMIT"),
    ("network.dns", "names that do not resolve"),
    ("network.hostile", "endless bodies and headers, bombs, trickles"),
    ("tls.trusted", "certificates of the given authority"),
    ("tls.refused", "expired, self-signed, for another name, TLS 1.1: before anything is sent"),
    ("tls.plain", "no server without TLS"),
    ("secrets.logs", "no secret in any log at any level"),
];

/// What names hosts that no test may speak to, or needs no server: the test of the client's own that proves it, and its file.
#[rustfmt::skip]
const BY_UNIT_TESTS: &[(Item, &str, &str)] = &[
    (("identity.hosts", "hosts and account names of all forms of identifiers"), "fn hosts_and_names", include_str!("../../src/core/config/account.rs")),
    (("identity.hostile", "identifiers that lead elsewhere"), "fn hostile_identifiers_are_refused", include_str!("../../src/core/config/account.rs")),
    (("identity.jwt", "the whole token, byte for byte"), "fn the_whole_token_is_known", include_str!("../../src/core/snowflake/key_pair.rs")),
    (("identity.keys", "formats of keys, and what is said of the others"), "rsa_2048_3des_sha1.p8", include_str!("../../src/core/snowflake/pem.rs")),
    (("put.endpoints-amazon", "regional, FIPS, private, Chinese and custom endpoints"), "fn s3_endpoints", include_str!("../../src/core/snowflake/stage/endpoint.rs")),
    (("put.endpoints-azure", "endpoints of all of Azure's clouds"), "fn azure_accounts", include_str!("../../src/core/snowflake/stage/endpoint.rs")),
    (("put.endpoints-google", "regional, virtual and custom endpoints"), "fn google_objects", include_str!("../../src/core/snowflake/stage/endpoint.rs")),
    (("put.vectors", "known answers of encryption and digests"), "fn known_answers", include_str!("../../src/core/snowflake/encryption.rs")),
    (("errors.codes", "every code: kind, message and hint"), "fn every_known_code", include_str!("../../src/core/snowflake/errors/tests.rs")),
    (("errors.statuses", "every HTTP status"), "fn http_statuses", include_str!("../../src/core/snowflake/errors/tests.rs")),
];

/// What this client does not use, and why; and what cannot be proved here.
#[rustfmt::skip]
const NOT_USED: &[Item] = &[
    ("unused.bindings", "values bound to statements: texts are built by one quoting module instead"),
    ("unused.monitoring", "the status of a statement without its result: polling gives both"),
    ("unused.several-statements", "several statements in one request: each has a request of its own"),
    ("unused.get", "GET: files are only put"),
    ("unused.other-logins", "logins that want a browser or a device: this client works unattended"),
    ("unused.expiry-time", "when stage credentials will expire: storage says when they have"),
    ("live.service", "the service itself: nothing here was tried on it"),
];

/// What the last line says of items beside the cases.
pub fn summary(missing: &[&str]) -> String {
    let names = |items: &mut dyn Iterator<Item = &'static str>| {
        let names: Vec<_> = items.collect();
        names.join(", ")
    };
    let missing = match missing {
        [] => "none".to_owned(),
        missing => missing.join(", "),
    };
    format!(
        "items={} without a case: {missing}; by unit tests: {}; not used or not to be had: {}",
        ITEMS.len() + BY_UNIT_TESTS.len(),
        names(&mut BY_UNIT_TESTS.iter().map(|((name, _), ..)| *name)),
        names(&mut NOT_USED.iter().map(|(name, _)| *name)),
    )
}

/// The items that no case proves.
///
/// # Errors
/// A name that is no item, or a unit test that is not where it is said to be.
pub fn without_case<'a>(covered: &[&'a str]) -> Result<Vec<&'static str>, &'a str> {
    if let Some((_, test, _)) = BY_UNIT_TESTS
        .iter()
        .find(|(_, test, source)| !source.contains(test))
    {
        return Err(test);
    }
    let known = |name: &&str| ITEMS.iter().any(|(item, _)| item == name);
    if let Some(unknown) = covered.iter().find(|name| !known(name)) {
        return Err(unknown);
    }
    Ok(ITEMS
        .iter()
        .map(|(item, _)| *item)
        .filter(|item| !covered.contains(item))
        .collect())
}
