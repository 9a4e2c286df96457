//! What uploads have left in the stage of a Snowflake user: found, and removed. Neither needs a warehouse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::execute;
use crate::error::Result;
use crate::snowflake::{QueryResult, Warehouse, sql};

/// The directory of an upload's files. Those of each claim are in a directory of its own, which is named by its number.
#[must_use]
pub fn directory(installation: Uuid, upload: Uuid) -> String {
    format!("{}{upload}/", root(installation))
}

fn root(installation: Uuid) -> String {
    format!("~/snowflake_bridge/{installation}/")
}

/// `~/snowflake_bridge/<installation>/` and `<upload>/<claim>/`, of the directory of an attempt.
pub(super) fn split(directory: &str) -> Option<(&str, &str)> {
    let (upload, _) = directory.strip_suffix('/')?.rsplit_once('/')?;
    let (root, _) = upload.rsplit_once('/')?;
    directory.split_at_checked(root.len() + 1)
}

/// The uploads of this installation that have files in the stage, and whether the newest was put there more than `age`
/// ago.
///
/// # Errors
/// What Snowflake answered.
pub async fn find(
    installation: Uuid,
    age: Duration,
    warehouse: &mut dyn Warehouse,
) -> Result<Vec<(Uuid, bool)>> {
    let listed = execute(warehouse, sql::list(&root(installation))).await?;
    let is_old = |modified: DateTime<Utc>| {
        Utc::now()
            .signed_duration_since(modified)
            .to_std()
            .is_ok_and(|since| since > age)
    };
    Ok(by_upload(installation, &listed)
        .into_iter()
        .map(|(upload, modified)| (upload, modified.is_some_and(is_old)))
        .collect())
}

/// When the newest file of each upload was put there, if Snowflake says it in its usual form. What is not named as our files
/// are is nobody's that we know, and stays.
fn by_upload(installation: Uuid, listed: &QueryResult) -> BTreeMap<Uuid, Option<DateTime<Utc>>> {
    let prefix = format!("snowflake_bridge/{installation}/");
    let mut found = BTreeMap::new();
    for row in 0..listed.rows.len() {
        let upload = listed
            .value(row, "name")
            .and_then(|name| name.split_once(&prefix))
            .and_then(|(_, path)| path.split_once('/'))
            .and_then(|(upload, _)| Uuid::parse_str(upload).ok());
        let Some(upload) = upload else { continue };
        let modified = listed
            .value(row, "last_modified")
            .and_then(|text| DateTime::parse_from_rfc2822(text).ok())
            .map(|time| time.to_utc());
        found
            .entry(upload)
            .and_modify(|newest: &mut Option<DateTime<Utc>>| {
                *newest = newest.zip(modified).map(|(one, other)| one.max(other));
            })
            .or_insert(modified);
    }
    found
}

/// Removes everything in a directory of the stage.
///
/// # Errors
/// What Snowflake answered.
pub async fn remove(directory: &str, warehouse: &mut dyn Warehouse) -> Result<()> {
    execute(warehouse, sql::remove(directory)).await.map(drop)
}

/// Removes what the claims of an upload have put into the stage, up to this one. Another one may have begun since, and what it has
/// put there is not touched.
///
/// # Errors
/// What Snowflake answered.
pub async fn remove_until(
    installation: Uuid,
    upload: Uuid,
    claim: i32,
    warehouse: &mut dyn Warehouse,
) -> Result<()> {
    let directory = directory(installation, upload);
    let listed = execute(warehouse, sql::list(&directory)).await?;
    for found in claims(&directory, &listed).range(..=claim) {
        remove(&format!("{directory}{found}/"), warehouse).await?;
    }
    Ok(())
}

fn claims(directory: &str, listed: &QueryResult) -> BTreeSet<i32> {
    let prefix = directory.trim_start_matches("~/");
    (0..listed.rows.len())
        .filter_map(|row| {
            let (_, path) = listed.value(row, "name")?.split_once(prefix)?;
            path.split_once('/')?.0.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_upload_and_only_ours() {
        let installation = Uuid::from_u128(1);
        let (one, two) = (Uuid::from_u128(2), Uuid::from_u128(3));
        let file = |path: String, modified: &str| vec![Some(path), Some(modified.to_owned())];
        let (first, second) = (
            "Thu, 1 Jan 2026 10:00:00 GMT",
            "Fri, 02 Jan 2026 10:00:00 GMT",
        );
        let listed = QueryResult {
            query_id: String::new(),
            columns: vec!["name".to_owned(), "last_modified".to_owned()],
            rows: vec![
                file(
                    format!("snowflake_bridge/{installation}/{one}/1/part-00000.parquet"),
                    second,
                ),
                file(
                    format!("snowflake_bridge/{installation}/{one}/2/part-00000.parquet"),
                    first,
                ),
                file(
                    format!("snowflake_bridge/{installation}/{two}/1/part-00000.parquet"),
                    "yesterday",
                ),
                file(
                    format!("snowflake_bridge/{}/{two}/1/x", Uuid::from_u128(9)),
                    first,
                ),
                file(format!("snowflake_bridge/{installation}/notes/x"), first),
                file(
                    format!("snowflake_bridge/{installation}/{}", Uuid::from_u128(8)),
                    first,
                ),
                file("other/x".to_owned(), first),
            ],
        };
        let found = by_upload(installation, &listed);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [one, two]);
        let newest = DateTime::parse_from_rfc2822(second).unwrap().to_utc();
        assert_eq!(found.get(&one), Some(&Some(newest)));
        assert_eq!(
            found.get(&two),
            Some(&None),
            "what has no known age is not old"
        );
    }

    #[test]
    fn files_of_an_upload_are_told_by_their_claim() {
        let directory = directory(Uuid::from_u128(1), Uuid::from_u128(2));
        let names = [
            "12/part-00000.parquet",
            "2/part-00000.parquet",
            "2/part-00001.parquet",
            "x/y",
            "7",
        ];
        let listed = QueryResult {
            query_id: String::new(),
            columns: vec!["name".to_owned()],
            rows: names
                .map(|name| {
                    vec![Some(format!(
                        "{}{name}",
                        directory.trim_start_matches("~/")
                    ))]
                })
                .to_vec(),
        };
        assert_eq!(claims(&directory, &listed), BTreeSet::from([2, 12]));
    }

    #[test]
    fn a_directory_is_below_its_installation() {
        assert_eq!(
            directory(Uuid::from_u128(1), Uuid::from_u128(2)),
            "~/snowflake_bridge/00000000-0000-0000-0000-000000000001/00000000-0000-0000-0000-000000000002/"
        );
    }
}
