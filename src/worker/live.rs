//! How far uploads in flight are, in a table of shared memory that any backend reads.

use pgrx::pg_sys;

/// Places over all databases: ten times what one has in flight with the settings as they come, those that share a COPY counted
/// one by one.
const PLACES: usize = 4096;
/// An upload's entry is in one of so many places from its own on, so that nobody looks through all of them under the lock. Ids
/// that follow each other do not meet. Where all of these are taken, it is not shown.
const PROBES: usize = 16;
/// From the places of one database to those of the next: ids count from one in each of them.
const STRIDE: u64 = 409;

/// How far an upload in flight is.
#[derive(Clone, Copy, Default)]
pub struct Live {
    pub upload: i64,
    pub database: pg_sys::Oid,
    pub phase: u8,
    pub rows: u64,
    pub staged_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Table([Live; PLACES]);

impl Default for Table {
    fn default() -> Self {
        Self([Live::default(); PLACES])
    }
}

impl Table {
    /// Enters or updates what is known of an upload.
    pub(super) fn show(&mut self, live: Live) {
        let places = || places(live.database, live.upload);
        let is = |place: usize, of: (pg_sys::Oid, i64)| {
            self.0
                .get(place)
                .is_some_and(|entry| (entry.database, entry.upload) == of)
        };
        let own = places().find(|place| is(*place, (live.database, live.upload)));
        let free = || places().find(|place| is(*place, (pg_sys::InvalidOid, 0)));
        if let Some(place) = own.or_else(free)
            && let Some(entry) = self.0.get_mut(place)
        {
            *entry = live;
        }
    }

    /// Forgets an upload that has ended.
    pub(super) fn end(&mut self, database: pg_sys::Oid, upload: i64) {
        for place in places(database, upload) {
            if let Some(entry) = self.0.get_mut(place)
                && (entry.database, entry.upload) == (database, upload)
            {
                *entry = Live::default();
            }
        }
    }

    /// Forgets all uploads of a database.
    pub(super) fn end_all(&mut self, database: pg_sys::Oid) {
        for entry in &mut self.0 {
            if entry.database == database {
                *entry = Live::default();
            }
        }
    }

    /// The uploads of a database.
    pub(super) fn of(&self, database: pg_sys::Oid) -> Vec<Live> {
        let is_of = |live: &&Live| live.upload != 0 && live.database == database;
        self.0.iter().filter(is_of).copied().collect()
    }
}

fn places(database: pg_sys::Oid, upload: i64) -> impl Iterator<Item = usize> {
    let first = u64::from(database.to_u32())
        .wrapping_mul(STRIDE)
        .wrapping_add(upload.unsigned_abs());
    let place = |number: u64| usize::try_from(number % PLACES as u64).unwrap_or_default();
    (0..PROBES as u64).map(move |probe| place(first.wrapping_add(probe)))
}
