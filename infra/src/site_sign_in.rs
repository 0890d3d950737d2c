//! A sign-in to Tableau with an entry that is not stored yet, to try its token.

use std::time::Duration;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shared::{redaction::known_secrets::KnownSecrets, sites::entry::SiteEntry};
use tableau::{Tableau, TableauError};
use tokio::time::Instant;

use crate::{aws::Aws, parameters, site_entries::DeclaredSites, stack::Stack, state_table};

/// How long a sign-in to Tableau may take, with retries.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(90);

/// The client of Tableau, with the CA certificates that the reconciler trusts too.
#[derive(Debug)]
pub struct SiteSignIn<'a> {
    aws: &'a Aws,
    stack: &'a Stack,
    declared: &'a DeclaredSites,
    tableau: Tableau,
    /// The SSM parameter of the CA certificates.
    pub ca_parameter: String,
}

impl<'a> SiteSignIn<'a> {
    /// Creates the client.
    ///
    /// # Errors
    ///
    /// The certificates cannot be read, or are not valid.
    pub async fn new(aws: &'a Aws, stack: &'a Stack, declared: &'a DeclaredSites) -> anyhow::Result<Self> {
        let (tableau, ca_parameter) = (Tableau::new()?, stack.parameter("tableau-ca"));
        let certificates = parameters::read(aws, &ca_parameter).await?;
        let certificates = certificates.as_ref().map(SecretString::expose_secret);
        tableau.trust_ca_certificates(certificates).with_context(|| {
            format!(
                "the CA certificates in {ca_parameter} are not valid. Nothing was stored. Fix: store a valid PEM file there"
            )
        })?;
        Ok(Self { aws, stack, declared, tableau, ca_parameter })
    }

    /// Signs in and returns the number of the site's webhooks, which only an administrator may list. Waits while a run of the
    /// reconciler uses the token, since a token has one session.
    ///
    /// # Errors
    ///
    /// Tableau refused it or cannot be reached: a [`TableauError`]. Or the token stays in use.
    pub async fn try_token(&self, entry: &SiteEntry) -> anyhow::Result<usize> {
        // A stack of an earlier release has no state table.
        let table = self.stack.output("StateTableName").ok().filter(|_| self.declared.use_token_of(entry));
        let Some(table) = table else { return Ok(self.sign_in(entry).await?) };
        let token = state_table::hold_token(self.aws, table, entry, 2 * SIGN_IN_TIMEOUT).await?;
        let result = self.sign_in(entry).await;
        let released = state_table::release_token(self.aws, token).await;
        let count = result?;
        released.map(|()| count)
    }

    async fn sign_in(&self, entry: &SiteEntry) -> Result<usize, TableauError> {
        let deadline = Instant::now() + SIGN_IN_TIMEOUT;
        let mut session = self.tableau.sign_in(entry, KnownSecrets::default(), deadline).await?;
        let webhooks = session.list(|_| false).await;
        // Without it the session ends by itself, or at the next sign-in.
        let _ = session.sign_out().await;
        webhooks.map(|webhooks| webhooks.readable.len() + webhooks.odd.len())
    }
}
