//! `snowflake_bridge`: the PostgreSQL side. Everything that needs no server lives in the crate `bridge_core`.
#![allow(missing_docs)]

::pgrx::pg_module_magic!(name, version);
