//! PostgreSQL values on their way out: the only code that touches Datums.

mod execution;
mod jsonb;
mod tuple;

pub use execution::{ReadOptions, read};
pub use tuple::Tuple;
