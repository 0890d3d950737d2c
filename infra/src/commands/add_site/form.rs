//! The values that a user types for a site entry.

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use shared::{
    registration::site_name::SiteName,
    sites::{
        address::{SiteAddress, in_browser},
        entry::SiteEntry,
        sign_in::is_cloud,
        token_end::TokenEnd,
    },
};
use tableau::ErrorKind;
use url::Url;

use crate::{
    prompt,
    site_entries::{DeclaredSite, DeclaredSites, NewEntry, same_site},
    terminal::{bad, print},
};

/// The input ended, for example with Ctrl-D.
const ENDED: &str = "the input ended. Nothing was stored";

/// A value of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Server and site.
    Address,
    /// Name of the token.
    TokenName,
    /// Secret of the token.
    Secret,
    /// End of the token.
    TokenExpires,
}

/// The answers so far, and the declared sites.
#[derive(Debug)]
pub(super) struct Form<'a> {
    parameter: &'a str,
    name: &'a SiteName,
    declared: &'a DeclaredSites,
    stack: &'a str,
    stored: Option<&'a DeclaredSite>,
    site: Option<(Url, String)>,
    token_name: Option<String>,
    secret: Option<SecretString>,
    /// When the token ends, as it is typed; empty if that is not known.
    token_expires: Option<String>,
    /// Whether the secret is the stored one. It stays only with its token.
    is_stored_secret: bool,
}

impl Field {
    /// All values, in the order in which they are asked.
    pub(super) const ALL: [Self; 4] = [Self::Address, Self::TokenName, Self::Secret, Self::TokenExpires];

    /// Returns the values that can be the cause of an error.
    pub(super) fn suspects(kind: ErrorKind) -> &'static [Self] {
        match kind {
            ErrorKind::Unreachable
            | ErrorKind::CertificateNotTrusted
            | ErrorKind::SignInRedirected
            | ErrorKind::ServerTooOld
            | ErrorKind::SiteNotFound => &[Self::Address],
            // Tableau does not say which.
            ErrorKind::TokenRefused => &[Self::Address, Self::TokenName, Self::Secret],
            ErrorKind::SessionEnded | ErrorKind::NotAdministrator => &[Self::TokenName, Self::Secret],
            ErrorKind::OutOfTime | ErrorKind::RateLimited | ErrorKind::Failed | ErrorKind::Unreadable => &[],
        }
    }
}

impl<'a> Form<'a> {
    /// A form with the stored values of the site, if there are any.
    pub(super) fn new(
        parameter: &'a str,
        name: &'a SiteName,
        declared: &'a DeclaredSites,
        stack: &'a str,
        token_expires: Option<String>,
    ) -> Self {
        let stored = declared.find(name);
        let mut form = Self {
            parameter,
            name,
            declared,
            stack,
            stored,
            site: None,
            token_name: None,
            secret: None,
            token_expires,
            is_stored_secret: false,
        };
        if let Some(SiteEntry { server, content_url, token_name, token_secret, .. }) =
            stored.and_then(|stored| stored.entry.as_ref().ok())
        {
            form.site = Some((server.clone(), content_url.clone()));
            form.token_name = Some(token_name.clone());
            form.secret = Some(token_secret.clone());
            form.is_stored_secret = true;
            print("Enter keeps the value in brackets.");
        }
        form
    }

    /// Returns the entry. Members that are not asked for stay as they are stored.
    ///
    /// # Errors
    ///
    /// A member that was not asked for is not valid.
    pub(super) fn entry(&self) -> anyhow::Result<NewEntry> {
        let (server, site) = self.site.as_ref().context("no address")?;
        let token_name = self.token_name.as_deref().context("no token name")?;
        let secret = self.secret.as_ref().context("no secret")?;
        let answers = [
            ("server", server.as_str()),
            ("site", site),
            ("token_name", token_name),
            ("token_secret", secret.expose_secret()),
        ];
        let mut given: Map<_, _> =
            answers.map(|(member, answer)| (member.to_owned(), Value::from(answer))).into_iter().collect();
        // Null removes the stored end, which is that of an earlier token.
        let typed = self.token_expires.as_ref().filter(|end| !end.is_empty());
        let stays = self.token_expires.is_none() && self.is_stored_secret;
        let end = typed.map_or(Value::Null, |end| end.as_str().into());
        given.extend((!stays).then(|| ("token_expires".to_owned(), end)));
        NewEntry::new(self.parameter, given, self.stored)
            .context("the site entry is not valid. Nothing was stored. Fix: correct the stored values in the details")
    }

    /// Asks for some values, and for those that are missing.
    ///
    /// # Errors
    ///
    /// The input ended.
    pub(super) async fn ask(&mut self, fields: &[Field]) -> anyhow::Result<()> {
        if fields.contains(&Field::Address) || self.site.is_none() {
            let site = self.ask_address().await?;
            // A typed secret stays, since a typing error in the address does not make it wrong.
            if self.is_stored_secret && self.site.as_ref().is_some_and(|(server, _)| *server != site.0) {
                self.secret = None;
            }
            self.site = Some(site);
        }
        if fields.contains(&Field::TokenName) || self.token_name.is_none() {
            let name = self.ask_token_name().await?;
            if self.is_stored_secret && self.token_name.as_ref() != Some(&name) {
                self.secret = None;
            }
            self.token_name = Some(name);
        }
        if fields.contains(&Field::Secret) || self.secret.is_none() {
            self.ask_secret().await?;
        }
        if fields.contains(&Field::TokenExpires) {
            self.ask_token_expires().await?;
        }
        Ok(())
    }

    /// Asks for the values that can be wrong. If none can, waits until the user wants to try again.
    ///
    /// # Errors
    ///
    /// The input ended.
    pub(super) async fn ask_again(&mut self, fields: &[Field]) -> anyhow::Result<()> {
        if fields.is_empty() {
            return answer("Press Enter to try again, or Ctrl-C to stop: ").await.map(drop);
        }
        print("Enter keeps the value in brackets, Ctrl-C stops.");
        self.ask(fields).await
    }

    /// Asks for the address until it names a site that no other entry declares.
    async fn ask_address(&self) -> anyhow::Result<(Url, String)> {
        let question = "Address of the site in a browser";
        loop {
            let site = match &self.site {
                None => {
                    let example = "https://10ax.online.tableau.com/#/site/marketing";
                    site_of(&answer(&format!("{question}, such as {example}: ")).await?).await?
                }
                Some((server, site)) => {
                    match answer(&format!("{question} [{}]: ", in_browser(server, site))).await?.as_str() {
                        "" => Some((server.clone(), site.clone())),
                        answer => site_of(answer).await?,
                    }
                }
            };
            let Some((server, site)) = site else { continue };
            print(match site.as_str() {
                "" => format!("  server {server}, Default site"),
                site => format!("  server {server}, site {site}"),
            });
            match self.declared.other(self.name.as_str(), &server, &site) {
                Some(other) => print(bad(same_site(&other.name, &server, &site, self.stack, ""))),
                None => return Ok((server, site)),
            }
        }
    }

    async fn ask_token_name(&self) -> anyhow::Result<String> {
        loop {
            let default = self.token_name.as_ref().map(|name| format!(" [{name}]")).unwrap_or_default();
            let name = answer(&format!("Name of the personal access token{default}: ")).await?;
            match (name.is_empty(), &self.token_name) {
                (false, _) => return Ok(name),
                (true, Some(default)) => return Ok(default.clone()),
                (true, None) => print(bad("the name is empty")),
            }
        }
    }

    /// Asks when the token ends, unless the command line says it, or Tableau Cloud does.
    async fn ask_token_expires(&mut self) -> anyhow::Result<()> {
        let is_read = self.site.as_ref().is_some_and(|(server, _)| is_cloud(server));
        if is_read || self.token_expires.is_some() {
            return Ok(());
        }
        // The stored end is that of the stored token.
        let stored = self.stored.and_then(|stored| stored.entry.as_ref().ok()?.token_expires);
        let stored = stored.filter(|_| self.is_stored_secret).map(|end| end.to_string());
        let default = stored.as_ref().map_or("Enter if not known".to_owned(), |end| format!("Enter keeps {end}"));
        loop {
            let end = answer(&format!("Date on which the token ends, such as 2027-05-21 ({default}): ")).await?;
            if end.is_empty() || TokenEnd::parse(&end).is_some() {
                self.token_expires = Some(end).filter(|end| !(end.is_empty() && stored.is_some()));
                return Ok(());
            }
            print(bad("this is not a date, such as 2027-05-21"));
        }
    }

    async fn ask_secret(&mut self) -> anyhow::Result<()> {
        loop {
            let question = match (&self.secret, self.is_stored_secret) {
                (None, _) => "Secret of the token (not shown): ",
                (Some(_), true) => "Secret of the token (not shown; Enter keeps the stored one): ",
                (Some(_), false) => "Secret of the token (not shown; Enter keeps the typed one): ",
            };
            let secret = prompt::secret(question).await?.context(ENDED)?;
            match (secret.trim(), &self.secret) {
                ("", Some(_)) => return Ok(()),
                ("", None) => print(bad("the secret is empty")),
                (secret, _) => {
                    (self.secret, self.is_stored_secret) = (Some(SecretString::from(secret)), false);
                    return Ok(());
                }
            }
        }
    }
}

/// Returns the server and the site of an address. Asks for the site if the address does not name it. `None` if it is not
/// valid, which the user is shown.
async fn site_of(address: &str) -> anyhow::Result<Option<(Url, String)>> {
    let SiteAddress { server, content_url } = match SiteAddress::parse(address) {
        Ok(address) => address,
        Err(error) => {
            print(bad(error));
            return Ok(None);
        }
    };
    if let Some(site) = content_url {
        return Ok(Some((server, site)));
    }
    let default = if is_cloud(&server) { "" } else { " (empty for the Default site)" };
    loop {
        let site = answer(&format!("Site, the part after /site/ in a browser's address{default}: ")).await?;
        if site.contains('/') || (site.is_empty() && is_cloud(&server)) {
            print(bad("this is not a part of an address, such as marketing"));
            continue;
        }
        return Ok(Some((server, site)));
    }
}

/// Asks a question and reads the answer.
async fn answer(question: &str) -> anyhow::Result<String> {
    prompt::line(question).await?.context(ENDED)
}
