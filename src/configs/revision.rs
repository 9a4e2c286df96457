//! What an update makes of a saved configuration: values that are not given stay, the secret only where it belongs.

use bridge_core::config::{Account, AllowedHosts, Credentials};

use super::credential::{ClientDetails, Wanted};
use super::{Draft, Given, StoredConfig, draft};
use crate::error::{Error, Result};

impl StoredConfig {
    /// What the configuration will say with `given` in place of what it says now.
    ///
    /// # Errors
    /// `22023` if the secret is missing although it was given for another account, user or OAuth client; what
    /// [`GivenCredential::read`](super::GivenCredential::read) refuses; what [`StoredConfig::open`] says if the secret
    /// stays.
    pub fn revised(&self, given: Given, hosts: &AllowedHosts) -> Result<Draft> {
        let over = |what, new: Option<String>, old: &Option<String>| match new {
            Some(new) => draft::optional(what, Some(new)),
            None => Ok(old.clone()),
        };
        let account_identifier = match given.account_identifier {
            Some(new) => draft::required("account_identifier", Some(new))?,
            None => self.account_identifier.clone(),
        };
        let username = over("username", given.username, &self.username)?;
        let credentials = match given.credential.read(self.oauth_client.as_ref())? {
            Wanted::Given(credentials) => credentials,
            Wanted::Stored(client) => {
                let old_host = Account::parse(&self.account_identifier, hosts).ok();
                let new_host = Account::parse(&account_identifier, hosts)?;
                if old_host.as_ref().map(Account::host) != Some(new_host.host())
                    || username != self.username
                {
                    return Err(bring_again("account or user name"));
                }
                self.stored_for(client)?
            }
        };
        Ok(Draft {
            account_identifier,
            warehouse: over("warehouse", given.warehouse, &self.warehouse)?,
            database: over("database", given.database, &self.database)?,
            schema: over("schema", given.schema, &self.schema)?,
            role: over("role", given.role, &self.role)?,
            username: draft::username(username, &credentials)?,
            credentials,
        })
    }

    /// The stored secret; with the details of an OAuth client, if it is of that client.
    fn stored_for(&self, client: Option<ClientDetails>) -> Result<Credentials> {
        let (Some(new), Some(old)) = (client, &self.oauth_client) else {
            return Ok(self.open()?.credentials);
        };
        if !new.has_same_secret(old) {
            return Err(bring_again("OAuth client or token URL"));
        }
        Ok(match self.open()?.credentials {
            Credentials::OAuthClient(client) => new.with_secret(client.client_secret),
            other => other,
        })
    }
}

fn bring_again(changed: &str) -> Error {
    Error::invalid(format!("a change of {changed} needs the secret again")).hint(
        "Pass the password, the key, the token or the client secret too: a stored secret is only ever sent to the \
         account, the user and the OAuth server it was given for.",
    )
}
