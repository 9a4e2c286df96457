//! The settings that bound what one owner may keep here.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

/// More connections than anybody has found a use for, and few enough that no owner fills the table.
static MAX_CONFIGS_PER_OWNER: GucSetting<i32> = GucSetting::<i32>::new(100);
/// Far more than waits while Snowflake is away for a day, and a part of the disks that servers have.
static MAX_SPOOL_PER_OWNER_MB: GucSetting<i32> = GucSetting::<i32>::new(10_240);
/// What a day's reports come to differs a thousandfold: nobody is limited who did not ask for it.
static MAX_DAILY_UPLOAD_PER_OWNER_MB: GucSetting<i32> = GucSetting::<i32>::new(0);
/// As much as `max_wal_size` is by default: what the server itself needs next.
static MIN_FREE_SPACE_MB: GucSetting<i32> = GucSetting::<i32>::new(1_024);

pub(super) fn register() {
    let settings: [(_, _, _, _, _); 4] = [
        (
            c"snowflake_bridge.max_configs_per_owner",
            c"Configurations that one owner may have.",
            c"0: no limit.",
            &MAX_CONFIGS_PER_OWNER,
            GucFlags::default(),
        ),
        (
            c"snowflake_bridge.max_spool_per_owner",
            c"Size of the files of upload_query and upload_table that one owner may have waiting.",
            c"Those of failed uploads wait too. 0: no limit.",
            &MAX_SPOOL_PER_OWNER_MB,
            GucFlags::UNIT_MB,
        ),
        (
            c"snowflake_bridge.max_daily_upload_per_owner",
            c"Size of the files that one owner may send to Snowflake within 24 hours.",
            c"What would be more waits. It counts from when it is set. 0: no limit.",
            &MAX_DAILY_UPLOAD_PER_OWNER_MB,
            GucFlags::UNIT_MB,
        ),
        (
            c"snowflake_bridge.min_free_space",
            c"Free space of the spool's file system below which no result is read.",
            c"A full disk in the data directory stops the server. 0: no limit.",
            &MIN_FREE_SPACE_MB,
            GucFlags::UNIT_MB,
        ),
    ];
    for (name, short, long, setting, flags) in settings {
        let reload = GucContext::Sighup;
        GucRegistry::define_int_guc(name, short, long, setting, 0, i32::MAX, reload, flags);
    }
}

/// `None`: as many as they like.
pub fn max_configs_per_owner() -> Option<i64> {
    match MAX_CONFIGS_PER_OWNER.get() {
        0 => None,
        most => Some(most.into()),
    }
}

/// Bytes; `None`: as much as there is room for.
pub fn max_spool_per_owner() -> Option<u64> {
    match super::count(&MAX_SPOOL_PER_OWNER_MB) {
        0 => None,
        most => Some(u64::from(most) << 20),
    }
}

/// Bytes; `None`: as much as they like.
pub fn max_daily_upload_per_owner() -> Option<u64> {
    match super::count(&MAX_DAILY_UPLOAD_PER_OWNER_MB) {
        0 => None,
        most => Some(u64::from(most) << 20),
    }
}

/// Bytes; 0: all may be taken.
pub fn min_free_space() -> u64 {
    u64::from(super::count(&MIN_FREE_SPACE_MB)) << 20
}
