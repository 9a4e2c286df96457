//! Statements whose names mean what was checked, whatever has got these names by the time PostgreSQL looks them up.
//!
//! A lock on a relation does not keep its schema from being renamed, and a function has no lock at all: between a check by OID
//! and a statement by name, the owner of the schema can put something else in its place. So whenever PostgreSQL has
//! resolved the names of such a statement, also where it makes a plan anew, and before it plans or runs anything, what was found
//! is compared with what is meant. From there on PostgreSQL goes by OIDs, and holds locks on the relations.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use once_cell::sync::OnceCell;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, Query, SpiClient, SpiTupleTable};
use pgrx::{PgList, pg_sys};

use crate::error::{Error, Result};
use crate::guards;

/// Plans that are kept: three for each of a hundred watches. With more, they are made anew.
const MAX_PLANS: usize = 300;

thread_local! {
    /// The statements that may be resolved now.
    static RUNNING: RefCell<Vec<Rc<Meaning>>> = const { RefCell::new(Vec::new()) };
    /// By what they mean and the types of their parameters.
    /// Not given back at the end of the process, when the server is no more there to take them.
    static PLANS: RefCell<ManuallyDrop<Plans>> = RefCell::default();
}

type Plans = HashMap<(Rc<Meaning>, Vec<pg_sys::Oid>), Rc<OwnedPreparedStatement>>;

/// The hook that was there before ours.
static PREVIOUS_HOOK: OnceCell<pg_sys::post_parse_analyze_hook_type> = OnceCell::new();

/// A statement and what its names mean. Beside these it names, in FROM, nothing but what is in `pg_catalog`.
pub struct Bound(Rc<Meaning>);

#[derive(PartialEq, Eq, Hash)]
struct Meaning {
    text: String,
    relations: Vec<pg_sys::Oid>,
    function: Option<pg_sys::Oid>,
}

impl Bound {
    /// A statement that names these relations and no others, none of them in a subquery that is an expression.
    pub fn to_relations(text: String, relations: &[pg_sys::Oid]) -> Self {
        Self(Rc::new(Meaning {
            text,
            relations: relations.to_vec(),
            function: None,
        }))
    }

    /// The same of one that calls a function in FROM.
    pub fn to_function(text: String, function: pg_sys::Oid, relations: &[pg_sys::Oid]) -> Self {
        Self(Rc::new(Meaning {
            text,
            relations: relations.to_vec(),
            function: Some(function),
        }))
    }

    /// Runs `work`, which runs the statement. Should its names mean anything else by then, that is an ERROR (`40001`).
    ///
    /// # Errors
    /// What `work` returns.
    pub fn run<T>(&self, work: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let _running = Running::begin(&self.0);
        work(&self.0.text)
    }

    /// As [`run`](Self::run), for one that is run again and again, in the same words.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn run_prepared<T>(&self, work: impl FnOnce(&Prepared<'_>) -> Result<T>) -> Result<T> {
        self.run(|_| work(&Prepared(&self.0)))
    }
}

/// A statement whose plan this process keeps, as PostgreSQL does a prepared one's: when anything about the relation has changed, its
/// names are resolved and compared anew. The settings of the session hold for it, as for what it calls.
pub struct Prepared<'a>(&'a Rc<Meaning>);

impl Prepared<'_> {
    /// Runs it where it only reads, for so many rows: those that are there once it has its locks. Whoever has rewritten the table while
    /// these were waited for has left nothing for an older snapshot.
    ///
    /// # Errors
    /// If it fails.
    pub fn select<'conn>(
        &self,
        client: &SpiClient<'conn>,
        rows: libc::c_long,
        args: &[DatumWithOid<'_>],
    ) -> Result<SpiTupleTable<'conn>> {
        let plan = self.plan(client, args)?;
        Ok(Query::execute(&*plan, client, Some(rows), args)?)
    }

    /// Runs it where it changes something.
    ///
    /// # Errors
    /// If it fails.
    pub fn update<'conn>(
        &self,
        client: &mut SpiClient<'conn>,
        args: &[DatumWithOid<'_>],
    ) -> Result<SpiTupleTable<'conn>> {
        let plan = self.plan(client, args)?;
        Ok(client.update(&*plan, None, args)?)
    }

    /// Of one that might change something: such a plan gets a snapshot of its own each time, after its locks.
    fn plan(
        &self,
        client: &SpiClient<'_>,
        args: &[DatumWithOid<'_>],
    ) -> Result<Rc<OwnedPreparedStatement>> {
        let types = args.iter().map(DatumWithOid::oid).collect();
        let key = (Rc::clone(self.0), types);
        if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).cloned()) {
            return Ok(plan);
        }
        let types: Vec<PgOid> = key.1.iter().copied().map(PgOid::from).collect();
        let plan = client.prepare_mut(self.0.text.as_str(), &types)?;
        let plan = Rc::new(plan.keep());
        PLANS.with_borrow_mut(|plans| {
            if plans.len() >= MAX_PLANS {
                plans.clear();
            }
            plans.insert(key, Rc::clone(&plan));
        });
        Ok(plan)
    }
}

/// Takes a statement back from those that may be resolved.
struct Running(usize);

impl Running {
    fn begin(meaning: &Rc<Meaning>) -> Self {
        PREVIOUS_HOOK.get_or_init(|| {
            // SAFETY: the main thread, on which alone hooks are called.
            unsafe {
                let previous = pg_sys::post_parse_analyze_hook;
                pg_sys::post_parse_analyze_hook = Some(compare);
                previous
            }
        });
        RUNNING.with_borrow_mut(|running| {
            running.push(Rc::clone(meaning));
            Self(running.len() - 1)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(|running| running.truncate(self.0));
    }
}

/// Called when the names of a statement, anybody's, were resolved, and nothing was done with it yet.
#[pg_guard]
unsafe extern "C-unwind" fn compare(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: PostgreSQL passes a live query, and the text that it came from or null.
    let is_meant = unsafe {
        let text = (*state).p_sourcetext;
        text.is_null()
            || RUNNING.with_borrow(|running| {
                let text = CStr::from_ptr(text).to_bytes();
                running
                    .iter()
                    .filter(|meaning| meaning.text.as_bytes() == text)
                    .all(|meaning| meaning.is_of(query))
            })
    };
    if !is_meant && guards::ON {
        let error = Error::user(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "the watched relation, or what gives its rows, was renamed, and something else has its name",
        );
        ErrorReport::from(error).report(PgLogLevel::ERROR);
    }
    if let Some(Some(previous)) = PREVIOUS_HOOK.get() {
        // SAFETY: what PostgreSQL has passed.
        unsafe { previous(state, query, jumble) };
    }
}

impl Meaning {
    /// Whether these are the relations and functions of a query, wherever in FROM and WITH.
    ///
    /// # Safety
    /// A live query.
    unsafe fn is_of(&self, query: *mut pg_sys::Query) -> bool {
        // SAFETY: as the caller promises; PostgreSQL's lists hold live nodes of the types that are expected here.
        unsafe {
            let entries = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
            let tables = PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList);
            !(*query).hasSubLinks
                && entries.iter_ptr().all(|entry| self.is_of_entry(entry))
                && tables
                    .iter_ptr()
                    .all(|table| self.is_of((*table).ctequery.cast()))
        }
    }

    /// # Safety
    /// A live entry of a query's FROM.
    unsafe fn is_of_entry(&self, entry: *mut pg_sys::RangeTblEntry) -> bool {
        // SAFETY: as above.
        unsafe {
            match (*entry).rtekind {
                pg_sys::RTEKind::RTE_RELATION => self.relations.contains(&(*entry).relid),
                pg_sys::RTEKind::RTE_SUBQUERY => self.is_of((*entry).subquery),
                pg_sys::RTEKind::RTE_FUNCTION => {
                    PgList::<pg_sys::RangeTblFunction>::from_pg((*entry).functions)
                        .iter_ptr()
                        .all(|function| {
                            let call = (*function).funcexpr;
                            (*call).type_ == pg_sys::NodeTag::T_FuncExpr
                                && Some((*call.cast::<pg_sys::FuncExpr>()).funcid) == self.function
                        })
                }
                _ => true,
            }
        }
    }
}

/// The type that a domain is of, however many are between; any other type itself.
pub fn base_type(of: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a look into the catalog, on the main thread inside a transaction.
    unsafe { pg_sys::getBaseType(of) }
}

/// A text as a value of a type, which has no need of the type's name. Code of the type's, as the check of a domain, runs here.
///
/// # Errors
/// If the text holds a NUL. One that the type cannot hold is an ERROR.
pub fn value_of_type(text: &str, kind: pg_sys::Oid) -> Result<DatumWithOid<'static>> {
    let text = CString::new(text).map_err(|_| Error::invalid("the text holds a NUL character"))?;
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: inside a transaction; the type was read from the catalog, and is an ERROR if it is gone. The value lives in the
    // current memory context, which the caller's statement does not outlive.
    unsafe {
        pg_sys::getTypeInputInfo(kind, &raw mut input, &raw mut parameter);
        let value = pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1);
        Ok(DatumWithOid::new(value, kind))
    }
}
