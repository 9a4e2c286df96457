//! A watched relation that is held: locked, so that it stays what and whose it is, and found to be one on which nobody decides
//! what code runs but its owner, or who has the owner's rights anyway.
//!
//! What PostgreSQL runs with a table is chosen by the table's owner, with two exceptions. Who holds TRIGGER may attach any
//! function and any condition, and nothing in the catalog tells afterwards who has made a trigger: so nobody else may hold it when a
//! status is written. And partitions may have been given away, with what their owners attach to them.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{Key, Watch};
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::owner::role_name;
use crate::statement::kept;
use crate::{guards, sandbox, tx};

/// What is to be done with a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Waits for its lock, as any query does.
    Read,
    /// Never waits, and lets nobody make a trigger meanwhile.
    Write,
}

pub struct Held<'a> {
    pub watch: &'a Watch,
    /// The relation's name, quoted and with its schema.
    pub name: String,
}

impl Watch {
    /// Holds the relation until the transaction ends; `None` if it was dropped.
    ///
    /// # Errors
    /// If it is not its watch's owner's, or somebody else may attach code to it (`42501`). For [`Access::Write`], `55P03` if
    /// somebody has locked it.
    pub fn hold(&self, access: Access) -> Result<Option<Held<'_>>> {
        if guards::ON {
            match access {
                Access::Read => tx::lock_to_read(self.relation),
                Access::Write => self.lock_tree()?,
            }
        }
        // What was committed before the lock was there has to be seen, whatever snapshot the transaction has.
        tx::with_latest_snapshot(|| {
            sandbox::as_caller(|| {
                let Some(found) = Found::of(self.relation)? else {
                    return Ok(None);
                };
                if guards::ON {
                    self.check_owner(found.owner)?;
                    let tree = found.tree(self.relation)?;
                    if found.has_parts {
                        self.check_parts(&tree)?;
                    }
                    if access == Access::Write {
                        self.check_triggers(&tree)?;
                    }
                }
                Ok(Some(Held {
                    watch: self,
                    name: found.name,
                }))
            })
        })
    }

    /// Locks the relation, then its parts, in the order in which PostgreSQL does: nothing that is checked of one of them is changed
    /// meanwhile. Nothing attached to a part runs when the whole is read.
    fn lock_tree(&self) -> Result<()> {
        tx::lock_to_write_now(self.relation)?;
        let tree = tx::with_latest_snapshot(|| sandbox::as_caller(|| tree(self.relation)))?;
        let parts = tree.into_iter().filter(|part| *part != self.relation);
        parts.into_iter().try_for_each(tx::lock_to_write_now)
    }

    /// The same of a relation that has to be there.
    ///
    /// # Errors
    /// As [`Watch::hold`], and if it was dropped.
    pub fn hold_existing(&self, access: Access) -> Result<Held<'_>> {
        self.hold(access)?.ok_or_else(Self::is_gone)
    }

    /// The role that now owns the relation must be the one for which it is watched, under the same name: the worker acts as
    /// that role there, and whoever owns the relation decides what code runs along.
    fn check_owner(&self, owner: pg_sys::Oid) -> Result<()> {
        if owner == self.owner.oid() && role_name(self.owner.oid())? == self.owner.user_id() {
            return Ok(());
        }
        Err(Error::missing(format!(
            "the relation does not belong to role \"{}\" any more, for which it is watched",
            self.owner.user_id()
        ))
        .hint("Let the relation's present owner call snowflake_bridge.watch again."))
    }

    fn check_parts(&self, tree: &[pg_sys::Oid]) -> Result<()> {
        let other = first(
            "select c.oid::regclass::text, c.relowner::regrole::text from pg_class c \
             where c.oid = any ($1) and not pg_has_role(c.relowner, $2, 'usage') order by c.oid limit 1",
            tree,
            self.owner.oid(),
        )?;
        let Some((part, other)) = other else {
            return Ok(());
        };
        Err(Error::denied(format!(
            "{part}, a part of the watched relation, belongs to {other}, which does not have the rights of role \"{}\"",
            self.owner.user_id()
        ))
        .hint("What its owner attaches to it would run with these rights: give the part to the owner of the whole."))
    }

    fn check_triggers(&self, tree: &[pg_sys::Oid]) -> Result<()> {
        let owner = self.owner.user_id();
        if let Some((relation, roles)) = others_with_trigger(tree, self.owner.oid())? {
            return Err(Error::denied(format!(
                "TRIGGER on {relation} is granted to {roles}, and what triggers run there would have the rights of role \"{owner}\""
            ))
            .hint(format!(
                "revoke trigger on {relation} from {roles}; and drop the triggers that you do not know."
            )));
        }
        // A trigger may have been made before TRIGGER was revoked: its function may be somebody's, and so may what its condition
        // calls, by name, as an operator or through a type. What PostgreSQL's own are is no dependency. A row that moves to another partition is deleted in one and
        // inserted in the other.
        let trigger = first(
            "select format('%I on %s', t.tgname, c.oid::regclass), pg_describe_object(d.refclassid, d.refobjid, 0) \
             from pg_class c join pg_trigger t on t.tgrelid = c.oid \
             join pg_depend d on d.classid = 'pg_trigger'::regclass and d.objid = t.oid \
             left join pg_proc f on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid \
             left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid \
             left join pg_type y on d.refclassid = 'pg_type'::regclass and y.oid = d.refobjid \
             where c.oid = any ($1) and t.tgenabled <> 'D' and (c.relispartition or t.tgtype & 16 <> 0) \
                 and not pg_has_role(coalesce(f.proowner, o.oprowner, y.typowner), $2, 'usage') \
             order by c.oid, t.tgname limit 1",
            tree,
            self.owner.oid(),
        )?;
        if let Some((trigger, used)) = trigger {
            return Err(Error::denied(format!(
                "trigger {trigger} uses {used}, whose owner does not have the rights of role \"{owner}\""
            ))
            .hint("It would run with these rights: drop the trigger, or give what it uses to a role that has them."));
        }
        self.check_conditions(tree)
    }

    /// PostgreSQL's own functions, whose numbers are below 16384, are no dependency of a trigger's; which of them its condition calls, its
    /// expression says. Some run SQL that they are given as text, read a relation that they are given the name of, or make a value of a
    /// type that they are given the number of: all of these may be anybody's. None of them is in this list of what is harmless among
    /// functions that promise nothing; the others have to do with XML, or take what only the input functions of types take.
    fn check_conditions(&self, tree: &[pg_sys::Oid]) -> Result<()> {
        let owner = self.owner.user_id();
        let trigger = first(
            "select format('%I on %s', t.tgname, c.oid::regclass), f.oid::regprocedure::text \
             from pg_class c join pg_trigger t on t.tgrelid = c.oid \
             cross join lateral regexp_matches(t.tgqual::text, ':(?:op)?funcid (\\d+)', 'g') as called (by_number) \
             join pg_proc f on f.oid = called.by_number[1]::oid \
             where c.oid = any ($1) and t.tgenabled <> 'D' and (c.relispartition or t.tgtype & 16 <> 0) and t.tgqual is not null \
                 and f.oid < 16384 \
                 and (f.provolatile = 'v' and f.proname <> all ('{clock_timestamp, timeofday, random, random_normal, \
                         gen_random_uuid, uuidv4, uuidv7, pg_is_in_recovery}') \
                     or f.proname ~ '_to_xml' or f.proname ~ '^pg_input_' \
                     or 'cstring'::regtype = any (f.proargtypes)) \
             order by c.oid, t.tgname limit 1",
            tree,
            self.owner.oid(),
        )?;
        let Some((trigger, used)) = trigger else {
            return Ok(());
        };
        Err(Error::denied(format!(
            "the condition of trigger {trigger} calls {used}, which is not known to do no harm with the rights of role \"{owner}\""
        ))
        .hint("Drop the trigger; if you need it, have its function look at this in place of the condition."))
    }
}

/// What the catalog says of a relation.
struct Found {
    /// Quoted and with its schema.
    name: String,
    owner: pg_sys::Oid,
    /// Something inherits from it, or has done so.
    has_parts: bool,
}

impl Found {
    fn of(relation: pg_sys::Oid) -> Result<Option<Self>> {
        const FOUND: &str = "select format('%I.%I', n.nspname, c.relname), c.relowner, c.relhassubclass \
            from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1";
        Spi::connect(|client| {
            let args = [relation.into()];
            let rows = client.select(kept(client, FOUND, &args)?, Some(1), &args)?;
            let Some(row) = rows.into_iter().next() else {
                return Ok(None);
            };
            let missing = || Error::missing("the watched relation is being dropped");
            Ok(Some(Self {
                name: row.get(1)?.ok_or_else(missing)?,
                owner: row.get(2)?.ok_or_else(missing)?,
                has_parts: row.get(3)?.unwrap_or(true),
            }))
        })
    }

    /// The relation, its partitions and whatever else inherits from it.
    fn tree(&self, relation: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
        const TREE: &str = "with recursive tree (oid) as (select $1::oid \
                union select i.inhrelid from pg_inherits i join tree on i.inhparent = tree.oid) \
            select oid from tree order by oid";
        if !self.has_parts {
            return Ok(vec![relation]);
        }
        Spi::connect(|client| {
            let args = [relation.into()];
            client
                .select(kept(client, TREE, &args)?, None, &args)?
                .map(|row| Ok(row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid)))
                .collect()
        })
    }
}

/// A relation, its partitions and whatever else inherits from it; nothing if it was dropped. To be run under a `search_path` of ours.
///
/// # Errors
/// If the catalog cannot be read.
pub fn tree(relation: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    Found::of(relation)?.map_or(Ok(Vec::new()), |found| found.tree(relation))
}

/// The first of these relations on which TRIGGER is granted to roles that do not have the rights of `owner`, and these roles as GRANT
/// names them. To be run under a `search_path` of ours.
///
/// # Errors
/// If the catalog cannot be read.
pub fn others_with_trigger(
    tree: &[pg_sys::Oid],
    owner: pg_sys::Oid,
) -> Result<Option<(String, String)>> {
    first(
        "select c.oid::regclass::text, \
             string_agg(distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end, ', ') \
         from pg_class c cross join lateral aclexplode(c.relacl) a \
         where c.oid = any ($1) and a.privilege_type = 'TRIGGER' and (a.grantee = 0 or not pg_has_role(a.grantee, $2, 'usage')) \
         group by c.oid order by c.oid limit 1",
        tree,
        owner,
    )
}

/// The two texts of a query's first row, if it gives one.
fn first(
    query: &'static str,
    tree: &[pg_sys::Oid],
    owner: pg_sys::Oid,
) -> Result<Option<(String, String)>> {
    Spi::connect(|client| {
        let args = [tree.to_vec().into(), owner.into()];
        let rows = client.select(kept(client, query, &args)?, Some(1), &args)?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(None);
        };
        Ok(row.get(1)?.zip(row.get(2)?))
    })
}

impl Held<'_> {
    /// The column by which the relation's executions are found.
    ///
    /// # Errors
    /// If it is gone.
    pub fn key(&self) -> Result<Key> {
        Key::of(self.watch.relation, &self.watch.columns.execution_id)
    }

    /// A statement on this relation and no other.
    pub fn statement(&self, text: String) -> Bound {
        Bound::to_relations(text, &[self.watch.relation])
    }
}
