//! The elements of an array, one after the other.
#![allow(unsafe_code)]

use pgrx::pg_sys;

/// Of no more than so many, all are taken out at once, which is much faster: each then takes nine bytes beside the array.
const AT_ONCE: i32 = 1 << 16;

/// What is left of an array's elements.
pub(super) enum Elements {
    Taken(Taken),
    OneByOne(pg_sys::ArrayIterator),
}

/// What PostgreSQL has made of an array. Given back when this is dropped.
pub(super) struct Taken {
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
    next: usize,
    count: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.values.is_null() && !self.nulls.is_null() {
            // SAFETY: made by PostgreSQL in memory that lives, see `Elements::of`.
            unsafe {
                pg_sys::pfree(self.values.cast());
                pg_sys::pfree(self.nulls.cast());
            }
        }
    }
}

/// How the elements of a type lie in an array.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

impl Layout {
    /// # Safety
    /// A type that exists; inside a transaction.
    pub(super) unsafe fn of(element: pg_sys::Oid) -> Self {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::get_typlenbyvalalign(
                element,
                &raw mut length,
                &raw mut by_value,
                &raw mut align,
            );
        }
        Self {
            length,
            by_value,
            align,
        }
    }
}

impl Elements {
    /// # Safety
    /// An array of such elements, in memory; the result is used only while it and the current memory context live.
    pub(super) unsafe fn of(
        array: *mut pg_sys::ArrayType,
        element: pg_sys::Oid,
        layout: Layout,
    ) -> Self {
        // SAFETY: as the caller promises; the sizes of the dimensions follow the header.
        unsafe {
            let sizes = array.add(1).cast::<i32>();
            if pg_sys::ArrayGetNItems((*array).ndim, sizes) > AT_ONCE {
                let iterator = pg_sys::array_create_iterator(array, 0, std::ptr::null_mut());
                return Self::OneByOne(iterator);
            }
            let (mut values, mut nulls, mut count) =
                (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                element,
                layout.length.into(),
                layout.by_value,
                layout.align,
                &raw mut values,
                &raw mut nulls,
                &raw mut count,
            );
            Self::Taken(Taken {
                values,
                nulls,
                next: 0,
                count: usize::try_from(count).unwrap_or(0),
            })
        }
    }

    /// The next element, which may be NULL.
    ///
    /// # Safety
    /// The array lives.
    pub(super) unsafe fn next(&mut self) -> Option<Option<pg_sys::Datum>> {
        match self {
            Self::Taken(taken) => {
                let index = taken.next;
                if index >= taken.count {
                    return None;
                }
                taken.next += 1;
                // SAFETY: PostgreSQL has made both as long as it says.
                unsafe { Some((!*taken.nulls.add(index)).then(|| *taken.values.add(index))) }
            }
            Self::OneByOne(iterator) => {
                let (mut value, mut is_null) = (pg_sys::Datum::from(0), false);
                // SAFETY: as the caller promises.
                unsafe {
                    pg_sys::array_iterate(*iterator, &raw mut value, &raw mut is_null)
                        .then(|| (!is_null).then_some(value))
                }
            }
        }
    }
}
