//! PostgreSQL values on their way out: the only code that touches Datums.

mod execution;
mod json_text;
mod jsonb;
mod query;
pub mod spooled;
mod tuple;
mod values;

pub use execution::{ReadOptions, read, read_small};
pub use query::{QueryOptions, QueryResult, check_query, read_query};
pub use tuple::{Tuple, argument};
