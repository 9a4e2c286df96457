//! What the queue takes from an execution's row.

use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, quote_identifier};

use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::owner::{Owner, current_role, has_rights_of};
use crate::sandbox;
use crate::watches::{Access, Key, Watch};

/// Whose upload it is: the watch's owner, or the user that the row names where a superuser allowed that.
pub fn owner_of(watch: &Watch, row_user_id: Option<&str>) -> Owner {
    match row_user_id {
        Some(user) if watch.act_for_users && !user.is_empty() => Owner::Jwt {
            subject: user.to_owned(),
        },
        _ => watch.owner.clone(),
    }
}

/// The options by which the queue's indexes tell apart what goes to different places.
const PLACE: [&str; 4] = ["config", "database", "schema_name", "table_name"];
/// What these take together at most, as JSON: an entry of an index has room for that, and for the name of a user beside it.
const MAX_PLACE_BYTES: usize = 2000;
const NO_PLACE: &str =
    "config, database, schema_name and table_name must be texts, of 2000 bytes at most together";

/// The target options of a row. What is not an object, or names a place that the queue cannot hold, is kept under a key that the
/// worker refuses by name, so that bad options become a failed upload and not an error in the application.
pub fn options(
    json: Option<&str>,
    table_name: Option<String>,
    schema_name: Option<String>,
) -> String {
    let mut options = match json.map(serde_json::from_str::<serde_json::Value>) {
        None | Some(Ok(serde_json::Value::Null)) => serde_json::Map::new(),
        Some(Ok(serde_json::Value::Object(options))) => options,
        // Without what it is: in something around it, it may be deeper than what can be read again.
        Some(Ok(_)) => serde_json::Map::from_iter([(
            "snowflake_options is not an object".to_owned(),
            true.into(),
        )]),
        Some(Err(_)) => {
            serde_json::Map::from_iter([("snowflake_options is not JSON".to_owned(), true.into())])
        }
    };
    for (key, value) in [("table_name", table_name), ("schema_name", schema_name)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            options.insert(key.to_owned(), value.into());
        }
    }
    if !is_place_short(&options) {
        options = serde_json::Map::from_iter([(NO_PLACE.to_owned(), true.into())]);
    }
    serde_json::Value::Object(options).to_string()
}

/// A number is refused here, since in the queue it may take far more than as it is written.
fn is_place_short(options: &serde_json::Map<String, serde_json::Value>) -> bool {
    let place = PLACE.iter().filter_map(|key| options.get(*key));
    let bytes = place.map(|value| match value {
        serde_json::Value::Null => Some(0),
        serde_json::Value::String(_) => Some(value.to_string().len()),
        _ => None,
    });
    bytes
        .sum::<Option<usize>>()
        .is_some_and(|bytes| bytes <= MAX_PLACE_BYTES)
}

/// What the queue has of an execution's row.
pub(super) struct Row {
    /// As the row has it, whatever else its type takes for the same.
    pub(super) execution_id: String,
    pub(super) user_id: Option<String>,
    pub(super) options: String,
}

impl Row {
    /// Of what a query of these [`columns`] has brought.
    pub(super) fn of(row: &SpiHeapTupleData<'_>) -> Result<Self> {
        let no_id = || Error::invalid("the execution has no id");
        let json = row.get::<String>(3)?;
        Ok(Self {
            execution_id: row.get(1)?.ok_or_else(no_id)?,
            user_id: row.get(2)?,
            options: options(json.as_deref(), row.get(4)?, row.get(5)?),
        })
    }
}

/// What a query asks of the rows of a watched relation, for [`Row::of`].
pub(super) fn columns(watch: &Watch, key: &Key) -> String {
    let user = watch.columns.user_id.as_ref().map_or_else(
        || "null".to_owned(),
        |column| format!("{}::pg_catalog.text", quote_identifier(column)),
    );
    format!(
        "{}, {user}, snowflake_options::pg_catalog.text, snowflake_table_name::pg_catalog.text, snowflake_schema_name::pg_catalog.text",
        key.text()
    )
}

/// The row of an execution, read as the caller, with the caller's rights and policies: who cannot see the row
/// cannot upload it. Whoever has the owner's rights reads it as the owner, in the sandbox: a superuser who looks after
/// somebody's table must not run the casts of that somebody's types.
pub(super) fn read(watch: &Watch, execution_id: &str) -> Result<Option<Row>> {
    if !has_rights_of(current_role(), watch.owner.oid()) {
        return read_as(watch, &watch.existing_name()?, execution_id);
    }
    let held = watch.hold_existing(Access::Read)?;
    sandbox::as_table_owner(watch.owner.oid(), || {
        read_as(watch, &held.name, execution_id)
    })
}

/// The same with the rights that there are now, of the relation with this name, which must be the watched one.
fn read_as(watch: &Watch, name: &str, execution_id: &str) -> Result<Option<Row>> {
    let key = Key::of(watch.relation, &watch.columns.execution_id)?;
    let query = format!(
        "select {} from {name} where {}",
        columns(watch, &key),
        key.condition()
    );
    Bound::to_relations(query, &[watch.relation]).run(|query| {
        let id = key.id.value(execution_id)?;
        Spi::connect(|client| {
            let Some(row) = client.select(query, Some(1), &[id])?.next() else {
                return Ok(None);
            };
            Row::of(&row).map(Some)
        })
    })
}
