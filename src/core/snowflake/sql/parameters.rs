//! Statements that ask what an administrator has set. Like every SHOW they need no warehouse.

use super::quote_ident;

/// Asks for the network policy that is set for a user. Users may ask about themselves.
#[must_use]
pub fn show_network_policy_of_user(user: &str) -> String {
    format!(
        "SHOW PARAMETERS LIKE 'NETWORK_POLICY' IN USER {}",
        quote_ident(user)
    )
}

/// Asks for the network policy that holds for all users for whom none is set.
#[must_use]
pub fn show_network_policy_of_account() -> String {
    "SHOW PARAMETERS LIKE 'NETWORK_POLICY' IN ACCOUNT".to_owned()
}
