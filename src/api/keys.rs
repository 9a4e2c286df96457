//! The keys that secrets are encrypted with: made, changed for new ones, and counted. For superusers.

use bridge_core::keyring::Keyring;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use uuid::Uuid;

use super::access::require_superuser;
use crate::configs::{self, Resealed};
use crate::error::Result;
use crate::sandbox::as_extension_owner;
use crate::tx::OwnTransactions;
use crate::{error, keys};

#[pg_extern(volatile, strict, parallel_unsafe)]
fn generate_key_file(replace_lost: default!(bool, "false")) -> Result<String, ErrorReport> {
    require_superuser()?;
    let path = as_extension_owner(|| keys::create(replace_lost))?;
    Ok(path.display().to_string())
}

#[pg_extern(stable, parallel_unsafe)]
fn encryption_keys() -> Result<
    TableIterator<
        'static,
        (
            name!(key_id, i64),
            name!(state, &'static str),
            name!(secrets, i64),
        ),
    >,
    ErrorReport,
> {
    require_superuser()?;
    let uses = as_extension_owner(keys::uses)?;
    Ok(TableIterator::new(uses.into_iter().map(
        |((id, state), secrets)| (i64::from(id), state.as_str(), secrets),
    )))
}

// A procedure, since each configuration is changed in a transaction of its own: nobody waits for all of them.
#[pg_extern(
    sql = "create procedure snowflake_bridge.rotate_encryption_key() language c as 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn rotate_encryption_key(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    require_superuser()?;
    let transactions = OwnTransactions::begin(fcinfo)?;
    Ok(rotate(&transactions)?)
}

/// Goes on with what an interrupted call has left under older keys; only where that is nothing, a new key is made.
fn rotate(transactions: &OwnTransactions) -> Result<()> {
    let old = transactions.run(|| as_extension_owner(keys::load_or_create))?;
    if reseal_all(transactions, &old)? == 0 {
        let old_id = old.active()?.id();
        let new = transactions.run(|| as_extension_owner(|| keys::add(old_id)))?;
        reseal_all(transactions, &new)?;
    }
    Ok(())
}

/// Every configuration whose secrets are not under the active key, and tells the client; how many there were.
fn reseal_all(transactions: &OwnTransactions, keyring: &Keyring) -> Result<u64> {
    let key_id = keyring.active()?.id();
    let (mut done, mut unreadable) = (0, 0);
    for id in transactions.run(|| as_extension_owner(configs::ids))? {
        match reseal(transactions, id, keyring)? {
            Resealed::Done => done += 1,
            Resealed::NothingToDo | Resealed::Changed => {}
            Resealed::Unreadable(error) => {
                unreadable += 1;
                error::log_error(
                    &format!(
                        "snowflake_bridge: the secrets of configuration {id} stay as they are"
                    ),
                    &error,
                );
            }
        }
    }
    if done > 0 {
        notice!("configurations whose secrets are now encrypted with key {key_id}: {done}");
    }
    if unreadable > 0 {
        warning!(
            "configurations whose secrets cannot be decrypted and stay as they are: {unreadable}; the server log says which"
        );
    }
    Ok(done)
}

/// One configuration, again if somebody changes it at the same time.
fn reseal(transactions: &OwnTransactions, id: Uuid, keyring: &Keyring) -> Result<Resealed> {
    loop {
        let resealed = transactions.run(|| as_extension_owner(|| configs::reseal(id, keyring)))?;
        if !matches!(resealed, Resealed::Changed) {
            return Ok(resealed);
        }
        pgrx::check_for_interrupts!();
    }
}
