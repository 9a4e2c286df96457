//! Taking uploads out of the queue: which are due, and whose turn it is.

use std::sync::LazyLock;

use bridge_core::ErrorKind;
use bridge_core::fairness::Closed;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::claimed::{CLAIMED, Claim, Claimed, claimed};
use super::record::{NextState, record_error};
use super::turns::{ALONE, IS_LET_IN, TURNS, UNENDED};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::statement::kept_for_queue;

/// What uploads queue in: an owner and the name of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub owner: Owner,
    pub config: String,
}

/// Whose turn it is.
pub struct Turn {
    /// The lane that was served last: those after it come first.
    pub after: Option<Lane>,
    /// Owners, connections and accounts that get no further upload for now.
    pub closed: Closed<Owner>,
    /// Whether an upload during which the worker crashed may be taken.
    pub suspects: bool,
}

/// Takes the first due upload of the next lane that has one. The attempt is counted here, and committed before the row is
/// touched. An execution whose earlier upload has not ended waits, so that its rows are replaced in order. One that came
/// back too late for that, because nobody saw it waiting when the newer one began, is canceled. What a dump has brought from
/// another installation waits until it is adopted.
///
/// # Errors
/// If a statement fails.
pub fn claim(turn: &Turn) -> Result<Option<Claimed>> {
    take_current(|| take(turn))
}

/// Takes another upload that waits for the same table as one that was taken, has the same connection, only adds rows, and was never
/// begun before. None where somebody wants a table of this name alone, or one whose name is not known here.
///
/// # Errors
/// If a statement fails.
pub fn claim_beside(first: &Claimed) -> Result<Option<Claimed>> {
    take_current(|| {
        Spi::connect_mut(|client| {
            let args = [first.id.into(), first.account.as_str().into()];
            let rows = client.update(kept_for_queue(client, &TAKE_BESIDE, &args)?, None, &args)?;
            Ok(claimed(rows)?.pop())
        })
    })
}

/// Takes until there is one that was not overtaken by a newer upload of its execution.
fn take_current(take: impl Fn() -> Result<Option<Claimed>>) -> Result<Option<Claimed>> {
    loop {
        match take()? {
            Some(upload) if upload.is_superseded && upload.transaction.is_none() => {
                record_error(upload.as_claim(), NextState::Canceled, &superseded(), false)?;
            }
            Some(upload) => {
                return Ok(Some(Claimed {
                    cancel_requested: upload.cancel_requested || upload.is_superseded,
                    ..upload
                }));
            }
            None => return Ok(None),
        }
    }
}

/// What becomes of an upload that would load beside a newer one what that one has replaced.
fn superseded() -> Error {
    bridge_core::Error::new(
        ErrorKind::Canceled,
        "a newer upload of the same execution has begun",
    )
    .into()
}

fn take(turn: &Turn) -> Result<Option<Claimed>> {
    let after = turn.after.as_ref();
    // An account is not known where there is no configuration: nothing is sent then.
    let answering = [&[String::new()], turn.closed.answering.as_slice()].concat();
    let (kinds, users, oids) = columns(turn.closed.owners.iter());
    let (knocking_kinds, knocking_users, knocking_oids) = columns(turn.closed.knockers.iter());
    let (busy_kinds, busy_users, busy_oids) =
        columns(turn.closed.busy.iter().map(|(owner, _)| owner));
    let busy_configs: Vec<_> = turn
        .closed
        .busy
        .iter()
        .map(|(_, config)| config.as_str())
        .collect();
    Spi::connect_mut(|client| {
        let args = [
            after.map_or("", |lane| lane.owner.kind()).into(),
            after.map_or("", |lane| lane.owner.user_id()).into(),
            after
                .map_or(0, |lane| i64::from(lane.owner.oid().to_u32()))
                .into(),
            after.map_or("", |lane| lane.config.as_str()).into(),
            kinds.into(),
            users.into(),
            oids.into(),
            turn.closed.no_knocks.into(),
            turn.closed.accounts.clone().into(),
            turn.suspects.into(),
            knocking_kinds.into(),
            knocking_users.into(),
            knocking_oids.into(),
            answering.into(),
            busy_kinds.into(),
            busy_users.into(),
            busy_oids.into(),
            busy_configs.into(),
        ];
        let heed = Heed {
            turns: does_somebody_want_a_table(client)?,
            closed: !turn.closed.is_nothing(),
        };
        let rows = client.update(kept_for_queue(client, heed.taking(), &args)?, None, &args)?;
        Ok(claimed(rows)?.pop())
    })
}

/// Whether an upload that has not ended is to be alone at its table.
fn does_somebody_want_a_table(client: &SpiClient<'_>) -> Result<bool> {
    static WANTS_ALONE: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select exists (select from snowflake_bridge.uploads u where {ALONE} and {UNENDED})"
        )
    });
    let rows = client.select(kept_for_queue(client, &WANTS_ALONE, &[])?, Some(1), &[])?;
    Ok(rows.first().get_one()?.unwrap_or(true))
}

fn columns<'a>(
    owners: impl Iterator<Item = &'a Owner> + Clone,
) -> (Vec<&'a str>, Vec<&'a str>, Vec<i64>) {
    let kinds = owners.clone().map(Owner::kind).collect();
    let users = owners.clone().map(Owner::user_id).collect();
    let oid = |owner: &Owner| i64::from(owner.oid().to_u32());
    (kinds, users, owners.map(oid).collect())
}

/// What there is to heed when an upload is taken, usually nothing. To set a statement up takes most of its time, so that there is one for
/// each case.
#[derive(Clone, Copy)]
struct Heed {
    /// Somebody wants a table alone.
    turns: bool,
    /// Somebody gets no further upload for now.
    closed: bool,
}

impl Heed {
    /// The statement that takes an upload.
    fn taking(self) -> &'static str {
        static NOTHING: LazyLock<String> = LazyLock::new(|| taking(false, false));
        static CLOSED: LazyLock<String> = LazyLock::new(|| taking(false, true));
        static TURNS: LazyLock<String> = LazyLock::new(|| taking(true, false));
        static BOTH: LazyLock<String> = LazyLock::new(|| taking(true, true));
        match (self.turns, self.closed) {
            (false, false) => &NOTHING,
            (false, true) => &CLOSED,
            (true, false) => &TURNS,
            (true, true) => &BOTH,
        }
    }
}

/// Goes from lane to lane by the index `uploads_lanes`, once round from the one after the given lane on, until it finds an
/// upload that may be taken: of the lane's streams, the one whose first upload has been due for longest comes first. What it
/// costs depends on how many lanes and streams have to be passed, and not on how many uploads wait in them. Whoever has no connection
/// sends nothing, and need not be let in.
fn taking(heeds_turns: bool, heeds_closed: bool) -> String {
    const GIVEN: &str = "$1, $2, $3::oid, $4";
    let next_lane = |after: &str| {
        format!(
            "select u.owner_kind, u.user_id, u.owner_oid, {CONFIG} as config \
             from snowflake_bridge.uploads u where u.state in ('queued', 'retry') \
               and (u.owner_kind, u.user_id, u.owner_oid, {CONFIG}) > ({after}) \
             order by u.owner_kind, u.user_id, u.owner_oid, {CONFIG} limit 1"
        )
    };
    // Looked at beside the index, which for such an end would be read on for as long as its first column is the same.
    let next_up_to_given = |after: &str| {
        format!(
            "select n.* from ({}) n where ({}) <= ({GIVEN})",
            next_lane(after),
            lane("n")
        )
    };
    let of_lane = format!(
        "snowflake_bridge.uploads u where u.state in ('queued', 'retry') \
           and (u.owner_kind, u.user_id, u.owner_oid, {CONFIG}) = ({})",
        lane("l")
    );
    let next_head = |condition: &str| {
        format!(
            "select {STREAM} as stream, u.next_attempt_at, u.id, u.watch_id from {of_lane} {condition} \
             order by {STREAM}, u.next_attempt_at, u.id limit 1"
        )
    };
    let due = |condition: &str, order: &str| {
        format!(
            "select * from (select u.id from {of_lane} and {STREAM} = s.stream {condition} \
                 and u.next_attempt_at <= clock_timestamp() \
                 and not exists (select from snowflake_bridge.uploads e \
                     where e.watch_id = u.watch_id and e.execution_id = u.execution_id and e.id < u.id \
                       and e.state in ('queued', 'retry', 'claimed', 'staged', 'copying')) \
                 and (u.crash_count = 0 or $10) \
               order by {order} limit 1 for update skip locked) d"
        )
    };
    let (turns, head, due) = if heeds_turns {
        (
            format!(", {}", TURNS.as_str()),
            format!(
                "h.stream, t.last from heads h left join held t on ({}, t.stream) = ({}, h.stream)",
                lane("t"),
                lane("l")
            ),
            format!(
                "{} union all {}",
                due("and s.last is null", "u.next_attempt_at, u.id"),
                due("and u.id <= s.last", "u.id")
            ),
        )
    } else {
        // One that came after that was found out waits until it is found out again.
        let any = due(
            &format!("and {ALONE} is not true"),
            "u.next_attempt_at, u.id",
        );
        (String::new(), "h.stream from heads h".to_owned(), any)
    };
    let is_open = if heeds_closed { &*IS_OPEN } else { "true" };
    format!(
        "with recursive later as ( \
             ({first_later}) union all select n.* from later l cross join lateral ({next_later}) n), \
         earlier as ( \
             ({first_earlier}) union all select n.* from earlier l cross join lateral ({next_earlier}) n), \
         lanes as (select * from later union all select * from earlier){turns}, \
         due as materialized ( \
             select d.id, {account} as account, {IS_LET_IN} or o.id is null as is_let_in from lanes l \
             left join snowflake_bridge.snowflake_configurations o on (o.owner_kind, o.user_id, o.owner_oid, o.name) = ({l}) \
             cross join lateral ( \
                 with recursive heads as ( \
                     ({first_head}) union all select n.* from heads h cross join lateral ({next_head}) n) \
                 select d.* from ( \
                     select {head} \
                     where h.next_attempt_at <= clock_timestamp() \
                       and (h.watch_id is null or exists (select from snowflake_bridge.watches w \
                           join snowflake_bridge.installation i on i.id = w.installation_id where w.id = h.watch_id)) \
                     order by h.next_attempt_at, h.id) s \
                 cross join lateral ({due}) d limit 1) d \
             where {is_open} \
             limit 1) \
         update snowflake_bridge.uploads u set {TAKEN} \
         from due where u.id = due.id returning {claimed}, due.account",
        claimed = CLAIMED.as_str(),
        first_later = next_lane(GIVEN),
        next_later = next_lane(&lane("l")),
        first_earlier = next_up_to_given("'', '', 0::oid, ''"),
        next_earlier = next_up_to_given(&lane("l")),
        l = lane("l"),
        account = ACCOUNT,
        first_head = next_head(""),
        next_head = next_head(&format!("and {STREAM} > h.stream")),
    )
}

/// Where the connection of the lane `l`, of the configuration `o`, is reached.
const ACCOUNT: &str = "lower(coalesce(o.account_identifier, ''))";

/// Whether the lane `l` may have another upload.
static IS_OPEN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "({owner}) not in ({closed}) and {ACCOUNT} <> all ($9) \
         and (not $8 and ({owner}) not in ({knockers}) or {ACCOUNT} = any ($14)) \
         and (({l}) not in ({busy}) or not exists (select from snowflake_bridge.snowflake_configurations other \
             where other.is_active and ({owner}, other.name) not in ({busy}) \
               and (other.owner_kind, other.user_id, other.owner_oid) = ({owner})))",
        l = lane("l"),
        owner = "l.owner_kind, l.user_id, l.owner_oid",
        closed = "select c.kind, c.user_id, c.oid::oid from unnest($5, $6, $7) as c (kind, user_id, oid)",
        knockers = "select c.kind, c.user_id, c.oid::oid from unnest($11, $12, $13) as c (kind, user_id, oid)",
        busy = "select c.kind, c.user_id, c.oid::oid, c.config from unnest($15, $16, $17, $18) as c (kind, user_id, oid, config)",
    )
});

const TAKEN: &str = "state = 'claimed', is_let_in = due.is_let_in, claim_count = u.claim_count + 1, attempt_count = u.attempt_count + 1, claimed_at = clock_timestamp(), \
    server_started_at = pg_postmaster_start_time(), \
    error_message = null, error_hint = null, error_code = null, error_sqlstate = null, query_id = null, \
    needs_mirror = true, mirror_after = clock_timestamp()";

/// Of the stream of the upload `$1`, by the index `uploads_lanes`.
static TAKE_BESIDE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "with due as materialized ( \
             select d.id, l.is_let_in from (select u.owner_kind, u.user_id, u.owner_oid, {CONFIG} as config, {STREAM} as stream, u.is_let_in, \
                     u.options ->> 'table_name' as table_name \
                 from snowflake_bridge.uploads u where u.id = $1) l \
             cross join lateral ( \
                 select u.id from snowflake_bridge.uploads u \
                 where u.state = 'queued' and (u.owner_kind, u.user_id, u.owner_oid, {CONFIG}) = ({l}) and {STREAM} = l.stream \
                   and u.next_attempt_at <= clock_timestamp() and u.attempt_count = 0 and u.crash_count = 0 and {ALONE} is not true \
                   and not exists (select from snowflake_bridge.uploads e \
                       where e.watch_id = u.watch_id and e.execution_id = u.execution_id and e.id < u.id \
                         and e.state in ('queued', 'retry', 'claimed', 'staged', 'copying')) \
                 order by u.next_attempt_at, u.id limit 1 for update skip locked) d \
             where not exists (select from snowflake_bridge.uploads u where {ALONE} and {UNENDED} \
                 and coalesce(lower(u.options ->> 'table_name') = lower(l.table_name), true))) \
         update snowflake_bridge.uploads u set {TAKEN} from due where u.id = due.id returning {claimed}, $2",
        l = lane("l"),
        claimed = CLAIMED.as_str(),
    )
});

/// The upload of this claim, for another process of the worker's.
///
/// # Errors
/// If the statement fails.
pub fn of_claim(claim: Claim) -> Result<Option<Claimed>> {
    Spi::connect(|client| {
        let rows = client.select(
            &format!(
                "select {}, '' from snowflake_bridge.uploads u \
                 where u.id = $1 and u.claim_count = $2 and u.state = 'claimed'",
                CLAIMED.as_str()
            ),
            Some(1),
            &[claim.upload.into(), claim.number.into()],
        )?;
        Ok(claimed(rows)?.pop())
    })
}

/// The connection that an upload of `uploads u` names.
pub(super) const CONFIG: &str = "coalesce(u.options ->> 'config', 'default')";

/// What tells the uploads of a lane apart that go to different tables, of `uploads u`: the indexes have the same expression.
/// Two streams may still go to one table.
pub(super) const STREAM: &str = "(coalesce((u.options -> 'database')::text, '') || ' ' || \
    coalesce((u.options -> 'schema_name')::text, '') || ' ' || coalesce((u.options -> 'table_name')::text, '') || ' ' || \
    coalesce(u.watch_id::text, ''))";

/// The columns of a lane, of what is called `alias`.
pub(super) fn lane(alias: &str) -> String {
    ["owner_kind", "user_id", "owner_oid", "config"]
        .map(|column| format!("{alias}.{column}"))
        .join(", ")
}
