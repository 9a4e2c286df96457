//! Statements that run with every UPDATE of somebody's, or with every upload: parsed and planned once in a process, as PL/pgSQL
//! does it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, Query, SpiClient, SpiCursor, SpiResult, SpiTupleTable};

use crate::error::Result;
use crate::setting::ForNow;

thread_local! {
    /// By what they are planned for, and their text. Never given back: they live as long as the process.
    static KEPT: RefCell<HashMap<For, HashMap<String, Kept>>> = RefCell::default();
    /// When the size of the queue was looked at, and what it was.
    static QUEUE: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// Within so long, a queue does not grow by much: an upload takes tens of microseconds to enter.
const QUEUE_GROWS: Duration = Duration::from_millis(100);

/// What a plan is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum For {
    /// It changes nothing.
    Reading,
    Changing,
    /// It looks for rows in a queue of such a size: the power of eight that its table's bytes reach.
    Queue(u32),
}

/// A statement with its plan, which serves for whatever its parameters are. Left to itself, PostgreSQL would plan a large one anew
/// for each run: it takes what that costs for less than it is.
#[derive(Clone, Copy)]
pub struct Kept(&'static OwnedPreparedStatement);

/// Under which statements are planned, whenever that is. Our tables may grow from nothing to a million rows long before statistics
/// say so: the plan has to be the one that goes by indexes, in their order, however little there is when it is made. What has to be
/// read without an index seems to cost so much then that it would be compiled, which takes longer than anything else here.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"jit", c"off"),
    (c"enable_seqscan", c"off"),
    (c"enable_sort", c"off"),
    (c"enable_incremental_sort", c"off"),
];

impl<'conn> Query<'conn> for Kept {
    fn execute<'mcx>(
        self,
        client: &SpiClient<'conn>,
        limit: Option<libc::c_long>,
        args: &[DatumWithOid<'mcx>],
    ) -> SpiResult<SpiTupleTable<'conn>> {
        let _settings = ForNow::set(SETTINGS);
        self.0.execute(client, limit, args)
    }

    fn try_open_cursor<'mcx>(
        self,
        client: &SpiClient<'conn>,
        args: &[DatumWithOid<'mcx>],
    ) -> SpiResult<SpiCursor<'conn>> {
        let _settings = ForNow::set(SETTINGS);
        self.0.try_open_cursor(client, args)
    }
}

/// The plan of a query on our own tables or the catalog. PostgreSQL itself makes it anew when what it names has changed. Meant for
/// texts of which there are few: each is kept.
///
/// # Errors
/// If it cannot be parsed.
pub fn kept(client: &SpiClient<'_>, text: &str, args: &[DatumWithOid<'_>]) -> Result<Kept> {
    planned(client, text, For::Reading, args)
}

/// As [`kept`], for a statement that changes something.
///
/// # Errors
/// As [`kept`].
pub fn kept_mut(client: &SpiClient<'_>, text: &str, args: &[DatumWithOid<'_>]) -> Result<Kept> {
    planned(client, text, For::Changing, args)
}

/// As [`kept_mut`], for a statement whose best plan depends on how large the queue is: a plan for each power of eight. What waits may
/// grow to a million rows long before statistics say so, and a plan for an empty table would read them all. Whoever meets a new size
/// waits for some milliseconds, so there are few of them.
///
/// # Errors
/// As [`kept`].
pub fn kept_for_queue(
    client: &SpiClient<'_>,
    text: &str,
    args: &[DatumWithOid<'_>],
) -> Result<Kept> {
    planned(client, text, For::Queue(size_of_queue(client)?), args)
}

/// The power of eight that the bytes of the queue's table reach, or have reached a moment ago.
fn size_of_queue(client: &SpiClient<'_>) -> Result<u32> {
    const SIZE: &str = "select pg_catalog.pg_relation_size('snowflake_bridge.uploads')";
    let known = QUEUE.get();
    if let Some((_, class)) = known.filter(|(since, _)| since.elapsed() < QUEUE_GROWS) {
        return Ok(class);
    }
    let size = client
        .select(kept(client, SIZE, &[])?, Some(1), &[])?
        .first()
        .get_one::<i64>()?;
    let class = size.unwrap_or(0).max(1).ilog2() / 3;
    QUEUE.set(Some((Instant::now(), class)));
    Ok(class)
}

fn planned(
    client: &SpiClient<'_>,
    text: &str,
    purpose: For,
    args: &[DatumWithOid<'_>],
) -> Result<Kept> {
    let found = KEPT.with_borrow(|kept| kept.get(&purpose)?.get(text).copied());
    if let Some(statement) = found {
        return Ok(statement);
    }
    let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
    let statement = match purpose {
        For::Reading => client.prepare(text, &types)?,
        For::Changing | For::Queue(_) => client.prepare_mut(text, &types)?,
    };
    let statement = Kept(Box::leak(Box::new(statement.keep())));
    KEPT.with_borrow_mut(|kept| {
        let those = kept.entry(purpose).or_default();
        those.insert(text.to_owned(), statement)
    });
    Ok(statement)
}
