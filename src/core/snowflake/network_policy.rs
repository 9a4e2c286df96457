//! Whether a network policy holds for a user: without one, a stolen secret serves from anywhere.

use super::{Statement, Warehouse, sql};
use crate::Result;

/// Whether a network policy holds for the session's own user, or `None` where Snowflake does not let this user know.
///
/// What is set for the user comes before what is set for the account. A policy of the security integration that lets in
/// by OAuth is seen in neither place.
pub async fn has_network_policy(session: &mut impl Warehouse, user: &str) -> Option<bool> {
    for question in [
        sql::show_network_policy_of_user(user),
        sql::show_network_policy_of_account(),
    ] {
        if is_named(session, question).await.ok().flatten()? {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether the answer names a policy; `None` if it has no such parameter, which roles with few rights may not be shown.
async fn is_named(session: &mut impl Warehouse, question: String) -> Result<Option<bool>> {
    const KEY: &str = "NETWORK_POLICY";
    let parameters = session.execute(&Statement::new(question)).await?;
    Ok((0..parameters.rows.len())
        .find(|row| parameters.value(*row, "key") == Some(KEY))
        .map(|row| {
            parameters
                .value(row, "value")
                .is_some_and(|name| !name.is_empty())
        }))
}
