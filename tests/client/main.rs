//! The client against the stand-in, which checks what a real Snowflake would: passwords and signatures, the order of
//! things, encryption and digests of staged files. Needs a Python with the stand-in's requirements in `STANDIN_PYTHON`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod loads;
mod logins;
mod standin;
