//! What may be written without a statement, and which defaults are known without being asked.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::{PgTupleDesc, pg_sys};

/// The condition that all rows fulfill, ours.
const CHECK: &CStr = c"is_upload";

/// Whether a row may be written to a relation without looking for triggers, rules, generated columns, domains, partitions and the
/// like.
///
/// # Safety
/// With an open relation.
pub(super) unsafe fn is_simple(relation: pg_sys::Relation) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        let (class, descriptor) = ((*relation).rd_rel, (*relation).rd_att);
        let constraints = (*descriptor).constr;
        let columns = PgTupleDesc::from_pg_unchecked(descriptor);
        (*class).relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
            && !(*class).relispartition
            && !(*class).relhasrules
            && (*relation).trigdesc.is_null()
            && (constraints.is_null() || has_our_check_at_most(constraints))
            && columns.iter().all(|column| {
                column.attisdropped
                    || column.attgenerated == 0
                        && pg_sys::get_typtype(column.atttypid)
                            != pg_sys::TYPTYPE_DOMAIN as std::ffi::c_char
            })
    }
}

/// Others may call anything.
///
/// # Safety
/// With the constraints of an open relation.
unsafe fn has_our_check_at_most(constraints: *const pg_sys::TupleConstr) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        match (*constraints).num_check {
            0 => true,
            1 => CStr::from_ptr((*(*constraints).check).ccname) == CHECK,
            _ => false,
        }
    }
}

/// Whether an expression is `gen_random_uuid()`, of which each is as good as another.
///
/// # Safety
/// With an expression.
pub(super) unsafe fn is_random_uuid(expression: *mut pg_sys::Node) -> bool {
    // SAFETY: as the caller promises; its tag tells what it is.
    unsafe {
        (*expression).type_ == pg_sys::NodeTag::T_FuncExpr
            && (*expression.cast::<pg_sys::FuncExpr>()).funcid.to_u32() == pg_sys::F_GEN_RANDOM_UUID
    }
}
