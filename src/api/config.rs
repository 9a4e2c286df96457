//! Functions that save, show, change and delete a caller's Snowflake configurations.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use secrecy::SecretString;

use crate::configs::{self, DEFAULT_NAME, Given, GivenCredential};
use crate::error::Result;
use crate::owner::Owner;
use crate::sandbox::as_extension_owner;
use crate::worker::registry::{self, Wake};
use crate::{net, probe, secrets, tx};

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)] // Named arguments in SQL.
fn create_config(
    account_identifier: Option<String>,
    warehouse: default!(Option<String>, "NULL"),
    database: default!(Option<String>, "NULL"),
    schema: default!(Option<String>, "'PUBLIC'"),
    username: default!(Option<String>, "NULL"),
    password: default!(Option<String>, "NULL"),
    private_key: default!(Option<String>, "NULL"),
    private_key_passphrase: default!(Option<String>, "NULL"),
    token: default!(Option<String>, "NULL"),
    oauth_token: default!(Option<String>, "NULL"),
    oauth_client_id: default!(Option<String>, "NULL"),
    oauth_client_secret: default!(Option<String>, "NULL"),
    oauth_token_url: default!(Option<String>, "NULL"),
    oauth_scope: default!(Option<String>, "NULL"),
    role: default!(Option<String>, "NULL"),
    name: default!(Option<&str>, "'default'"),
    verify: default!(Option<bool>, "true"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    secrets::hide_statement(c"snowflake_bridge: create_config");
    let given = Given {
        account_identifier,
        warehouse,
        database,
        schema,
        role,
        username,
        credential: GivenCredential {
            password: password.map(SecretString::from),
            passcode: None,
            private_key: private_key.map(SecretString::from),
            private_key_passphrase: private_key_passphrase.map(SecretString::from),
            token: token.map(SecretString::from),
            oauth_token: oauth_token.map(SecretString::from),
            oauth_client_id,
            oauth_client_secret: oauth_client_secret.map(SecretString::from),
            oauth_token_url,
            oauth_scope,
        },
    };
    Ok(create(given, name, verify, user_id)?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn update_config(
    name: default!(Option<&str>, "'default'"),
    account_identifier: default!(Option<String>, "NULL"),
    warehouse: default!(Option<String>, "NULL"),
    database: default!(Option<String>, "NULL"),
    schema: default!(Option<String>, "NULL"),
    username: default!(Option<String>, "NULL"),
    password: default!(Option<String>, "NULL"),
    private_key: default!(Option<String>, "NULL"),
    private_key_passphrase: default!(Option<String>, "NULL"),
    token: default!(Option<String>, "NULL"),
    oauth_token: default!(Option<String>, "NULL"),
    oauth_client_id: default!(Option<String>, "NULL"),
    oauth_client_secret: default!(Option<String>, "NULL"),
    oauth_token_url: default!(Option<String>, "NULL"),
    oauth_scope: default!(Option<String>, "NULL"),
    role: default!(Option<String>, "NULL"),
    verify: default!(Option<bool>, "true"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<(), ErrorReport> {
    secrets::hide_statement(c"snowflake_bridge: update_config");
    let given = Given {
        account_identifier,
        warehouse,
        database,
        schema,
        role,
        username,
        credential: GivenCredential {
            password: password.map(SecretString::from),
            passcode: None,
            private_key: private_key.map(SecretString::from),
            private_key_passphrase: private_key_passphrase.map(SecretString::from),
            token: token.map(SecretString::from),
            oauth_token: oauth_token.map(SecretString::from),
            oauth_client_id,
            oauth_client_secret: oauth_client_secret.map(SecretString::from),
            oauth_token_url,
            oauth_scope,
        },
    };
    Ok(update(given, name, verify, user_id)?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn delete_config(
    name: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<(), ErrorReport> {
    tx::require_primary("delete_config")?;
    let owner = Owner::saving_for(user_id)?;
    Ok(as_extension_owner(|| {
        configs::delete(&owner, name.unwrap_or(DEFAULT_NAME))
    })?)
}

#[pg_extern(stable, parallel_unsafe)]
fn get_config(
    name: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, pgrx::Uuid),
            name!(name, String),
            name!(account_identifier, String),
            name!(warehouse, Option<String>),
            name!(database, Option<String>),
            name!(schema, Option<String>),
            name!(role, Option<String>),
            name!(username, Option<String>),
            name!(auth_method, String),
            name!(oauth_client_id, Option<String>),
            name!(oauth_token_url, Option<String>),
            name!(oauth_scope, Option<String>),
            name!(is_active, bool),
            name!(last_tested_at, Option<TimestampWithTimeZone>),
            name!(last_test_error, Option<String>),
            name!(created_at, TimestampWithTimeZone),
            name!(updated_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    let owner = Owner::acting_for(user_id)?;
    let found = as_extension_owner(|| configs::list(&owner, name))?;
    Ok(TableIterator::new(found.into_iter().map(|config| {
        let (client_id, token_url, scope) = match config.oauth_client {
            Some(client) => (Some(client.client_id), client.token_url, client.scope),
            None => (None, None, None),
        };
        (
            pgrx::Uuid::from_bytes(*config.id.as_bytes()),
            config.name,
            config.account_identifier,
            config.warehouse,
            config.database,
            config.schema,
            config.role,
            config.username,
            config.auth_method,
            client_id,
            token_url,
            scope,
            config.is_active,
            config.last_tested_at,
            config.last_test_error,
            config.created_at,
            config.updated_at,
        )
    })))
}

#[pg_extern(stable, parallel_unsafe)]
fn public_key(
    name: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<String, ErrorReport> {
    let owner = Owner::acting_for(user_id)?;
    Ok(as_extension_owner(|| {
        configs::require(&owner, name)?.public_key()
    })?)
}

/// Tests, then saves: a configuration that was saved has worked, unless the caller chose not to know.
fn create(
    given: Given,
    name: Option<&str>,
    verify: Option<bool>,
    user_id: Option<&str>,
) -> Result<pgrx::Uuid> {
    tx::require_primary("create_config")?;
    let owner = Owner::saving_for(user_id)?;
    let name = configs::config_name(name)?;
    let draft = given.complete()?;
    let settings = draft.settings(&net::limits()?.allowed_hosts)?;
    as_extension_owner(|| configs::require_free(&owner, &name).and(configs::require_keys()))?;
    let verify = verify.unwrap_or(true);
    if verify {
        probe::probe(settings).map_err(|error| draft.with_cure(error))?;
    }
    let id = as_extension_owner(|| configs::insert(&owner, &name, &draft, verify))?;
    Ok(pgrx::Uuid::from_bytes(*id.as_bytes()))
}

/// As [`create`]: what was there stays until its replacement has worked.
fn update(
    given: Given,
    name: Option<&str>,
    verify: Option<bool>,
    user_id: Option<&str>,
) -> Result<()> {
    tx::require_primary("update_config")?;
    let owner = Owner::saving_for(user_id)?;
    let hosts = net::limits()?.allowed_hosts;
    let (stored, draft) = as_extension_owner(|| {
        let stored = configs::require(&owner, name)?;
        configs::require_keys()?;
        let draft = stored.revised(given, &hosts)?;
        Ok((stored, draft))
    })?;
    let settings = draft.settings(&hosts)?;
    let verify = verify.unwrap_or(true);
    if verify {
        probe::probe(settings).map_err(|error| draft.with_cure(error))?;
    }
    as_extension_owner(|| configs::update(&stored, &draft, verify))?;
    registry::wake_at_commit(Wake::Worker);
    Ok(())
}
