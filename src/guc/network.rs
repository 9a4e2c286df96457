//! The setting that says which addresses may be contacted.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static ALLOW_PRIVATE_ENDPOINTS: GucSetting<bool> = GucSetting::<bool>::new(false);

pub(super) fn register() {
    GucRegistry::define_bool_guc(
        c"snowflake_bridge.allow_private_endpoints",
        c"Allow hosts that resolve to private network addresses.",
        c"Needed for PrivateLink. Off, so that nobody can make the server contact its own network.",
        &ALLOW_PRIVATE_ENDPOINTS,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

pub fn allow_private_endpoints() -> bool {
    ALLOW_PRIVATE_ENDPOINTS.get()
}
