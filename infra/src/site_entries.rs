//! The declared sites, and new entries beside them.

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use shared::{
    registration::site_name::SiteName,
    sites::{
        address::{SiteAddress, in_browser},
        commands::infra,
        entry::{BadEntry, SiteEntry},
    },
};
use url::Url;

use crate::{aws::Aws, parameters, stack::Stack};

/// A declared site.
#[derive(Debug)]
pub struct DeclaredSite {
    /// Its name, which may be invalid.
    pub name: String,
    /// Its entry, if it can be used.
    pub entry: Result<SiteEntry, BadEntry>,
    /// The time at which the entry was stored.
    pub stored_at: String,
    text: SecretString,
}

/// All declared sites, sorted by name.
#[derive(Debug)]
pub struct DeclaredSites(Vec<DeclaredSite>);

/// A valid entry that is not stored yet.
#[derive(Debug)]
pub struct NewEntry {
    /// The entry.
    pub entry: SiteEntry,
    /// The text to store.
    pub text: SecretString,
}

impl DeclaredSites {
    /// Reads them from SSM.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn read(aws: &Aws, stack: &Stack) -> anyhow::Result<Self> {
        let parameters = parameters::read_all(aws, stack.output("SitesPath")?).await?;
        let sites = parameters.into_iter().map(|parameters::Parameter { name: parameter, value: text, modified }| {
            let entry = SiteEntry::read(&parameter, text.expose_secret());
            let name = parameter.rsplit('/').next().unwrap_or_default().to_owned();
            DeclaredSite { name, entry, stored_at: modified, text }
        });
        Ok(Self(sites.collect()))
    }

    /// Returns them in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &DeclaredSite> {
        self.0.iter()
    }

    /// Finds a site by its name.
    pub fn find(&self, name: &SiteName) -> Option<&DeclaredSite> {
        self.iter().find(|site| site.name == name.as_str())
    }

    /// Finds another site that declares the same site of Tableau.
    pub fn other(&self, name: &str, server: &Url, content_url: &str) -> Option<&DeclaredSite> {
        self.iter().find(|site| {
            let is_same = |entry: &SiteEntry| entry.server == *server && entry.content_url == content_url;
            site.name != name && site.entry.as_ref().is_ok_and(is_same)
        })
    }

    /// Whether the reconciler may use the token of an entry.
    pub fn use_token_of(&self, entry: &SiteEntry) -> bool {
        let entries = self.iter().filter_map(|site| site.entry.as_ref().ok());
        entries.into_iter().any(|other| other.server == entry.server && other.token_name == entry.token_name)
    }
}

impl DeclaredSite {
    /// Returns the members of the stored entry, with the address in the form that new entries have.
    fn members(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(self.text.expose_secret()).ok().map(derive_site)
    }

    /// Whether the stored entry equals another.
    pub fn equals(&self, other: &NewEntry) -> bool {
        self.members() == serde_json::from_str(other.text.expose_secret()).ok()
    }
}

impl NewEntry {
    /// Creates the entry of a site from members of its JSON form. The address may be one from a browser, which also names the
    /// site. Members that are left out stay as they are stored, except that a stored secret stays only with its token: with
    /// the same server and token name. So does the stored end of the token, which ends with its secret too. A null removes a
    /// member.
    ///
    /// # Errors
    ///
    /// The entry is not valid.
    pub fn new(parameter: &str, given: Map<String, Value>, stored: Option<&DeclaredSite>) -> anyhow::Result<Self> {
        let mut members = derive_site(given);
        if let Some(mut stored) = stored.and_then(DeclaredSite::members) {
            let is_kept = |member: &str| members.get(member).is_none_or(|value| Some(value) == stored.get(member));
            if !(is_kept("server") && is_kept("token_name")) {
                stored.remove("token_secret");
                stored.remove("token_expires");
            } else if !is_kept("token_secret") {
                stored.remove("token_expires");
            }
            stored.into_iter().for_each(|(member, value)| _ = members.entry(member).or_insert(value));
        }
        members.retain(|_, value| !value.is_null());
        let text = SecretString::from(Value::Object(members).to_string());
        let entry = SiteEntry::parse(parameter, text.expose_secret())?;
        Ok(Self { entry, text })
    }

    /// Checks that no other entry declares the same site of Tableau.
    ///
    /// # Errors
    ///
    /// One does. The error names it.
    pub fn expect_no_other(&self, declared: &DeclaredSites, stack: &str) -> anyhow::Result<()> {
        let SiteEntry { name, server, content_url, .. } = &self.entry;
        match declared.other(name.as_str(), server, content_url) {
            Some(other) => bail!(same_site(&other.name, server, content_url, stack, "Nothing was stored. ")),
            None => Ok(()),
        }
    }
}

/// Describes that the entry `other` declares a site of Tableau already, with the effect or nothing.
pub fn same_site(other: &str, server: &Url, content_url: &str, stack: &str, effect: &str) -> String {
    format!(
        "the entry {other} declares the site {} already. {effect}Fix: change that entry with `{}`, or remove it with `{}`",
        in_browser(server, content_url),
        infra(&format!("add-site {other} --overwrite"), stack),
        infra(&format!("remove-site {other}"), stack)
    )
}

/// Replaces an address as a browser shows it by the server's. Adds the site that it names, unless one is given.
fn derive_site(mut members: Map<String, Value>) -> Map<String, Value> {
    // A member of another type, or an invalid address, is reported with all other problems of the entry.
    let address = members.get("server").and_then(Value::as_str).and_then(|text| SiteAddress::parse(text).ok());
    let Some(SiteAddress { server, content_url }) = address else { return members };
    members.insert("server".to_owned(), server.origin().ascii_serialization().into());
    if let Some(site) = content_url {
        members.entry("site").or_insert(site.into());
    }
    members
}

/// Reads the members of an entry's JSON form.
///
/// # Errors
///
/// The text is not a JSON object.
pub fn members(text: &str) -> anyhow::Result<Map<String, Value>> {
    // The parser's error could repeat a part of the text.
    serde_json::from_str(text).ok().context("its value is not a JSON object")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PARAMETER: &str = "/tableau-fanout/sites/marketing";

    fn declared(entry: &Value) -> DeclaredSite {
        let text = entry.to_string();
        let entry = SiteEntry::read(PARAMETER, &text);
        let (name, stored_at) = ("marketing".to_owned(), String::new());
        DeclaredSite { name, entry, stored_at, text: SecretString::from(text) }
    }

    fn completed(given: &Value, stored: Option<&DeclaredSite>) -> anyhow::Result<Value> {
        let new = NewEntry::new(PARAMETER, members(&given.to_string())?, stored)?;
        Ok(serde_json::from_str(new.text.expose_secret())?)
    }

    #[test]
    fn an_address_from_a_browser_gives_server_and_site() -> anyhow::Result<()> {
        let entry = |server: &str| json!({ "server": server, "token_name": "n", "token_secret": "s" });
        let mut expected = entry("https://10ax.online.tableau.com");
        expected["site"] = json!("mkt");
        assert_eq!(completed(&entry("10ax.online.tableau.com/#/site/mkt/home"), None)?, expected);
        expected["site"] = json!("other");
        let mut given = entry("10ax.online.tableau.com/#/site/mkt/home");
        given["site"] = json!("other");
        assert_eq!(completed(&given, None)?, expected);
        let error = completed(&entry("10ax.online.tableau.com"), None).expect_err("no site").to_string();
        assert!(error.contains("site is missing"), "{error}");
        Ok(())
    }

    #[test]
    fn what_is_left_out_stays_and_a_secret_stays_only_with_its_token() -> anyhow::Result<()> {
        let stored = json!({ "server": "https://10ax.online.tableau.com/", "site": "mkt", "token_name": "n",
            "token_secret": "s", "token_expires": "2027-05-21", "events": ["ViewDeleted"] });
        let site = declared(&stored);
        let mut expected = stored.clone();
        expected["server"] = json!("https://10ax.online.tableau.com");
        for given in [json!({}), json!({ "server": "10ax.online.tableau.com", "token_name": "n" })] {
            assert_eq!(completed(&given, Some(&site))?, expected);
        }
        expected["token_secret"] = json!("t");
        expected.as_object_mut().context("an object")?.remove("token_expires");
        assert_eq!(completed(&json!({ "token_secret": "t" }), Some(&site))?, expected);
        expected.as_object_mut().context("an object")?.remove("events");
        assert_eq!(completed(&json!({ "token_secret": "t", "events": null }), Some(&site))?, expected);
        let renewed = json!({ "token_name": "m", "token_secret": "t" });
        assert_eq!(completed(&renewed, Some(&site))?.get("token_expires"), None);
        for given in [json!({ "server": "https://other.example" }), json!({ "token_name": "m" })] {
            let error = completed(&given, Some(&site)).expect_err("a secret of another token").to_string();
            assert!(error.contains("token_secret is missing"), "{error}");
        }
        Ok(())
    }
}
