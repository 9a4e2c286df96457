//! What the server says about its types beyond their descriptions.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Result};

/// How many digits after the point a value of money has: the locale says, and it may say none.
pub(super) fn money_scale() -> Result<u8> {
    let scale =
        Spi::get_one::<i32>("select pg_catalog.scale('0'::pg_catalog.money::pg_catalog.numeric)")?;
    scale
        .and_then(|scale| u8::try_from(scale).ok())
        .ok_or_else(|| Error::invalid("lc_monetary does not say how many digits money has"))
}

/// The name of a type that an extension of that matter brought; anybody may call a type of their own `geometry`.
pub(super) fn extension_type(type_oid: pg_sys::Oid) -> Result<Option<String>> {
    const NAME: &str = "
        select t.typname::pg_catalog.text from pg_catalog.pg_type t
          join pg_catalog.pg_depend d on d.classid operator(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
               and d.objid operator(pg_catalog.=) t.oid and d.deptype operator(pg_catalog.=) 'e'
          join pg_catalog.pg_extension e on e.oid operator(pg_catalog.=) d.refobjid
         where t.oid operator(pg_catalog.=) $1
           and e.extname operator(pg_catalog.=) any ('{hstore,postgis}'::pg_catalog.name[])";
    Ok(Spi::connect(|client| {
        client
            .select(NAME, Some(1), &[type_oid.into()])?
            .next()
            .map_or(Ok(None), |row| row.get::<String>(1))
    })?)
}

/// The function that makes jsonb of hstore.
///
/// # Safety
/// A type that exists; inside a transaction.
pub(super) unsafe fn cast_of_hstore(type_oid: pg_sys::Oid) -> Result<Option<pg_sys::Oid>> {
    if extension_type(type_oid)?.as_deref() != Some("hstore") {
        return Ok(None);
    }
    let mut function = pg_sys::InvalidOid;
    // SAFETY: as the caller promises.
    unsafe {
        let path = pg_sys::find_coercion_pathway(
            pg_sys::JSONBOID,
            type_oid,
            pg_sys::CoercionContext::COERCION_EXPLICIT,
            &raw mut function,
        );
        Ok((path == pg_sys::CoercionPathType::COERCION_PATH_FUNC).then_some(function))
    }
}
