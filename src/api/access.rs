//! Functions for superusers: who may use the extension, and what becomes of a copy.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::worker::registry::{self, Wake};
use crate::{installation, sandbox, tx};

#[pg_extern(volatile, strict, parallel_unsafe)]
fn grant_usage(role: &str) -> Result<(), ErrorReport> {
    Ok(grant(role)?)
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn revoke_usage(role: &str) -> Result<(), ErrorReport> {
    Ok(revoke(role)?)
}

#[pg_extern(volatile, strict, parallel_unsafe)]
fn adopt(take_over: default!(bool, "false")) -> Result<i64, ErrorReport> {
    require_superuser()?;
    tx::require_primary("adopt")?;
    let unfinished = sandbox::as_extension_owner(|| installation::adopt(take_over))?;
    registry::wake_at_commit(Wake::NewWorker);
    Ok(unfinished)
}

/// What "API: public" marks, and nothing else: functions to call, relations to read without their secrets. Nobody gets
/// to write a table.
fn grant(role: &str) -> Result<()> {
    const GRANTS: &str = r"
        select pg_catalog.format('grant usage on schema snowflake_bridge to %I', $1)
        union all
        select pg_catalog.format('grant execute on function %s to %I', p.oid::pg_catalog.regprocedure, $1)
          from pg_catalog.pg_proc p
         where p.pronamespace = 'snowflake_bridge'::pg_catalog.regnamespace
           and pg_catalog.obj_description(p.oid, 'pg_proc') like 'API: public%'
        union all
        select pg_catalog.format('grant select (%s) on %s to %I',
                   pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by a.attnum),
                   c.oid::pg_catalog.regclass, $1)
          from pg_catalog.pg_class c
          join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = 'snowflake_bridge'::pg_catalog.regnamespace
           and pg_catalog.obj_description(c.oid, 'pg_class') like 'API: public%'
           and a.attname not like '%\_encrypted'
         group by c.oid";
    run_each(GRANTS, role)
}

fn revoke(role: &str) -> Result<()> {
    const REVOKES: &str = "
        select pg_catalog.format('revoke all on %s snowflake_bridge from %I', k.kind, $1)
          from pg_catalog.unnest(array['all routines in schema', 'all tables in schema', 'all sequences in schema',
                                       'schema']) k (kind)";
    run_each(REVOKES, role)
}

/// Runs the statements that a query about `role` builds.
fn run_each(query: &str, role: &str) -> Result<()> {
    require_superuser()?;
    if Spi::get_one_with_args::<bool>(
        "select exists (select from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) $1)",
        &[role.into()],
    )? != Some(true)
    {
        return Err(Error::missing(format!("role \"{role}\" does not exist")));
    }
    sandbox::as_extension_owner(|| {
        Spi::connect_mut(|client| {
            let statements = client
                .select(query, None, &[role.into()])?
                .map(|row| row.get::<String>(1))
                .collect::<Result<Vec<_>, _>>()?;
            for statement in statements.into_iter().flatten() {
                client.update(&statement, None, &[])?;
            }
            Ok(())
        })
    })
}

/// Privileges alone would do, but those can be given away.
pub(super) fn require_superuser() -> Result<()> {
    sandbox::require_unrestricted()?;
    match is_superuser()? {
        true => Ok(()),
        false => Err(Error::denied(
            "permission denied: only superusers may do this",
        )),
    }
}

/// Whether the current role is one.
pub(super) fn is_superuser() -> Result<bool> {
    const IS_SUPERUSER: &str = "select r.rolsuper from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) current_user";
    Ok(tx::read::<bool>(IS_SUPERUSER, &[])?.unwrap_or(false))
}
