//! The settings that say how the files of an upload are made.

use std::ffi::{CStr, CString, c_char, c_void};

use bridge_core::parquet::Compression;
use bridge_core::spool::SpoolOptions;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{pg_guard, pg_sys};

/// Snowflake recommends load files of 100 to 250 MB compressed.
static TARGET_FILE_SIZE_MB: GucSetting<i32> = GucSetting::<i32>::new(128);
/// As fast as encoding itself, and next to none of our files gets smaller by more.
static COMPRESSION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"zstd"));

pub(super) fn register() {
    GucRegistry::define_int_guc(
        c"snowflake_bridge.target_file_size",
        c"Size at which a Parquet file is closed and the next begun.",
        c"",
        &TARGET_FILE_SIZE_MB,
        1,
        1_024,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    // SAFETY: the hook is one of a text setting, and keeps nothing of what it is given.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"snowflake_bridge.compression",
            c"Compression of the Parquet files.",
            c"zstd, zstd:LEVEL with a level of 1 to 9, or none. Without a level it is 1.",
            &COMPRESSION,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_compression),
            None,
            None,
        );
    }
}

/// Whether a value is one of the setting's.
///
/// # Safety
/// As PostgreSQL calls it: `new` points to a C string.
#[pg_guard]
unsafe extern "C-unwind" fn check_compression(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as the caller promises; the hint is a static text, which PostgreSQL only reads.
    unsafe {
        if parse(CStr::from_ptr(*new)).is_some() {
            return true;
        }
        pg_sys::GUC_check_errhint_string =
            c"Set it to zstd, to zstd:LEVEL with a level of 1 to 9, or to none."
                .as_ptr()
                .cast_mut();
    }
    false
}

fn parse(text: &CStr) -> Option<Compression> {
    Compression::parse(text.to_str().ok()?.trim())
}

/// How files are made, but for what encodes them.
pub fn spool_options() -> SpoolOptions {
    SpoolOptions {
        compression: COMPRESSION
            .get()
            .and_then(|text| parse(&text))
            .unwrap_or_default(),
        ..SpoolOptions::new(target_file_size(), super::max_memory())
    }
}

/// Bytes.
pub fn target_file_size() -> u64 {
    u64::from(super::count(&TARGET_FILE_SIZE_MB)) << 20
}
