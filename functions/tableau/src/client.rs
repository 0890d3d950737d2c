//! The client: connections to every Tableau server, and the version that each supports.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use secrecy::ExposeSecret;
use shared::{redaction::known_secrets::KnownSecrets, sites::entry::SiteEntry};
use tokio::time::Instant;
use url::Url;

use crate::{
    error::TableauError,
    http::{Http, InvalidCertificates},
    session::Session,
    sign_in::server_version,
    version::{ApiVersion, NEWEST, OLDEST},
};

/// Client of every Tableau server.
#[derive(Debug)]
pub struct Tableau {
    http: Http,
    /// The version used with each server. A server that is upgraded continues to support older ones.
    versions: Mutex<HashMap<Url, ApiVersion>>,
}

impl Tableau {
    /// Prepares the connections.
    ///
    /// # Errors
    ///
    /// The system's trust store cannot be read.
    pub fn new() -> reqwest::Result<Self> {
        Ok(Self { http: Http::new()?, versions: Mutex::default() })
    }

    /// Trusts servers whose certificates these CAs (PEM) signed, besides the public CAs. Replaces earlier ones.
    ///
    /// # Errors
    ///
    /// The certificates cannot be read. The trust store stays as it was.
    pub fn trust_ca_certificates(&self, pem: Option<&str>) -> Result<(), InvalidCertificates> {
        self.http.trust_ca_certificates(pem)
    }

    /// Signs in to a site. A personal access token has one session: this ends any earlier one. No call of the session
    /// lasts past the `deadline`. Answers are read with the `secrets`, the token and the session's token hidden.
    ///
    /// # Errors
    ///
    /// Tableau refuses, does not answer, or its answer cannot be read.
    pub async fn sign_in<'a>(
        &'a self,
        entry: &'a SiteEntry,
        mut secrets: KnownSecrets,
        deadline: Instant,
    ) -> Result<Session<'a>, TableauError> {
        secrets.add(entry.token_secret.expose_secret());
        let version = self.version(&entry.server, &mut secrets, deadline).await?;
        Session::open(&self.http, entry, version, secrets, deadline).await
    }

    /// Returns the newest version that the server and this client support.
    async fn version(
        &self,
        server: &Url,
        secrets: &mut KnownSecrets,
        deadline: Instant,
    ) -> Result<ApiVersion, TableauError> {
        // No code that can panic runs under the lock.
        let versions = || self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = versions().get(server) {
            return Ok(*version);
        }
        // A server that does not name its version still supports the oldest one. The next run asks again.
        let Some(newest) = server_version(&self.http, server, secrets, deadline).await? else { return Ok(OLDEST) };
        let version = newest.min(NEWEST);
        versions().insert(server.clone(), version);
        Ok(version)
    }
}
