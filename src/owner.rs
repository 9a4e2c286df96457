//! Whose a configuration or an upload is: a PostgreSQL role, or the user that a trusted session's JWT names.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::{guards, guc, sandbox, tx};

/// Name and OID of a role must both match: a role made again under an old name is somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    Role { name: String, oid: pg_sys::Oid },
    Jwt { subject: String },
}

impl Owner {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Role { .. } => "role",
            Self::Jwt { .. } => "jwt",
        }
    }

    pub fn user_id(&self) -> &str {
        match self {
            Self::Role { name, .. } => name,
            Self::Jwt { subject } => subject,
        }
    }

    /// The role's OID, 0 for a JWT subject.
    pub fn oid(&self) -> pg_sys::Oid {
        match self {
            Self::Role { oid, .. } => *oid,
            Self::Jwt { .. } => pg_sys::InvalidOid,
        }
    }

    /// [`Owner::oid`] as an argument of a statement. pgrx would make NULL of a 0.
    pub fn oid_argument(&self) -> DatumWithOid<'static> {
        // SAFETY: an OID is passed by value, in the lower half of the same word as this number.
        unsafe { DatumWithOid::new(i64::from(self.oid().to_u32()), pg_sys::OIDOID) }
    }

    /// A number that stands for the owner in all sessions of a server, until that is restarted.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// The owner that three columns of one of our tables name.
    pub fn from_columns(kind: &str, user_id: String, oid: pg_sys::Oid) -> Self {
        match kind {
            "jwt" => Self::Jwt { subject: user_id },
            _ => Self::Role { name: user_id, oid },
        }
    }

    /// Who is asking. In a gateway's session the user of the JWT, unless it is the owner of a SECURITY DEFINER function who
    /// asks, whose word the claims may be as well; otherwise the current role.
    ///
    /// # Errors
    /// `42501` within a security-restricted operation, or for malformed claims.
    pub fn caller() -> Result<Self> {
        sandbox::require_unrestricted()?;
        Self::current()
    }

    /// As [`Owner::caller`], without its refusal; for row level security, which only reads.
    pub fn current() -> Result<Self> {
        if (!guards::ON || is_gateway()? && sandbox::is_sessions_own_code())
            && let Some(subject) = jwt_subject()?
        {
            return Ok(Self::Jwt { subject });
        }
        let current = current_role();
        Ok(Self::Role {
            name: role_name(current)?,
            oid: current,
        })
    }

    /// The owner a call acts for: the caller, or the user it names, where the caller may do so.
    ///
    /// # Errors
    /// `42501` if the caller may not act for others.
    pub fn acting_for(user_id: Option<&str>) -> Result<Self> {
        let caller = Self::caller()?;
        let Some(user_id) = user_id else {
            return Ok(caller);
        };
        if user_id == caller.user_id() {
            return Ok(caller);
        }
        let current = current_role();
        if guards::ON
            && !is_superuser(current)
            && !guc::act_for_users_roles().contains(&role_name(current)?)
        {
            return Err(Error::denied(format!("permission denied to act for user \"{user_id}\""))
                .hint("Only superusers and the roles in snowflake_bridge.act_for_users_roles may pass user_id."));
        }
        if user_id.is_empty() {
            return Err(Error::invalid("user_id must not be empty"));
        }
        Ok(Self::Jwt {
            subject: user_id.to_owned(),
        })
    }

    /// As [`Owner::acting_for`], for a call that writes a configuration: a gateway's requests that name no user would share that
    /// of their role.
    ///
    /// # Errors
    /// As [`Owner::acting_for`]; `42501` in a gateway's session without a user.
    pub fn saving_for(user_id: Option<&str>) -> Result<Self> {
        let owner = Self::acting_for(user_id)?;
        if guards::ON && matches!(owner, Self::Role { .. }) && is_gateway()? {
            return Err(Error::denied("the request names no user whose configuration it could be").hint(
                "Send a token whose claims have a subject (sub), which is not believed within a SECURITY DEFINER function; \
                 or pass user_id, as a role in snowflake_bridge.act_for_users_roles.",
            ));
        }
        Ok(owner)
    }
}

/// Whether the session is that of a gateway such as PostgREST's: its login role is trusted to say who asks, and takes on the
/// role of one after the other.
///
/// # Errors
/// If the login role was dropped meanwhile.
pub fn is_gateway() -> Result<bool> {
    // SAFETY: a backend-local read.
    let session = role_name(unsafe { pg_sys::GetSessionUserId() })?;
    Ok(guc::claims_trusted_roles().contains(&session))
}

/// The current role.
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: a backend-local read.
    unsafe { pg_sys::GetUserId() }
}

/// Whether a role is a superuser.
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup inside a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether a role has the rights of another, by being it, a member of it, or a superuser.
pub fn has_rights_of(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup inside a transaction.
    unsafe { pg_sys::has_privs_of_role(role, other) }
}

/// Whether a role is another or a member of it. Unlike [`has_rights_of`], a superuser is not a member of every role: what others
/// have made is no more to be trusted by one who has more to lose.
pub fn is_member_of(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup inside a transaction.
    unsafe { pg_sys::is_member_of_role_nosuper(role, other) }
}

/// The name of a role.
///
/// # Errors
/// If it was dropped meanwhile.
pub fn role_name(oid: pg_sys::Oid) -> Result<String> {
    // SAFETY: a catalog lookup inside a transaction; the result is a palloc'd C string or null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(oid, true);
        if name.is_null() {
            return Err(Error::missing(format!(
                "role with OID {oid} does not exist"
            )));
        }
        Ok(CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// `sub` of PostgREST's `request.jwt.claims`, if there are claims with a subject.
fn jwt_subject() -> Result<Option<String>> {
    let claims: Option<String> = tx::read(
        "select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')",
        &[],
    )?;
    let Some(claims) = claims else {
        return Ok(None);
    };
    let claims: serde_json::Value = serde_json::from_str(&claims)
        .map_err(|_| Error::denied("request.jwt.claims is not valid JSON"))?;
    Ok(claims
        .get("sub")
        .and_then(serde_json::Value::as_str)
        .filter(|subject| !subject.is_empty())
        .map(str::to_owned))
}
