//! Site entries: which Tableau sites are managed, and how to sign in to them.

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;

use crate::{
    events::catalogue::Event,
    registration::site_name::SiteName,
    settings::{SettingsError, SettingsReader, address},
    sites::token_end::TokenEnd,
};

/// A Tableau site as its SSM parameter declares it.
///
/// ```
/// use shared::sites::entry::SiteEntry;
///
/// let stored = r#"{
///     "server": "https://10ax.online.tableau.com",
///     "site": "mkt",
///     "token_name": "fanout",
///     "token_secret": "the-secret",
///     "events": ["WorkbookRefreshFailed"]
/// }"#;
/// let entry = SiteEntry::parse("/tableau-fanout/sites/marketing", stored)?;
/// assert_eq!((entry.name.as_str(), &*entry.content_url), ("marketing", "mkt"));
/// assert_eq!(entry.events, Some(["WorkbookRefreshFailed".parse()?].into()));
/// assert!(!format!("{entry:?}").contains("the-secret"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SiteEntry {
    /// Name of the site: the last segment of the parameter's name.
    pub name: SiteName,
    /// Address of the Tableau server, without a path.
    pub server: Url,
    /// The site's contentUrl: the part after `/site/` in a browser's address, empty for the Default site.
    pub content_url: String,
    /// Name of the personal access token.
    pub token_name: String,
    /// Secret of the personal access token.
    pub token_secret: SecretString,
    /// The events to register, if the entry has its own list.
    pub events: Option<BTreeSet<Event>>,
    /// When the token ends, if the entry says so.
    pub token_expires: Option<TokenEnd>,
}

const MEMBERS: [&str; 6] = ["server", "site", "token_name", "token_secret", "events", "token_expires"];

/// A stored entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// The site's name, which may be invalid.
    pub site: String,
    /// All its problems.
    pub error: SettingsError,
}

/// Returns the name of the site that a parameter declares.
fn name_of(parameter: &str) -> &str {
    parameter.rsplit('/').next().unwrap_or_default()
}

impl SiteEntry {
    /// Reads the entry stored in the parameter called `parameter`, as [`SiteEntry::parse`] does.
    ///
    /// # Errors
    ///
    /// All problems of the entry, with the site's name.
    pub fn read(parameter: &str, text: &str) -> Result<Self, BadEntry> {
        Self::parse(parameter, text).map_err(|error| BadEntry { site: name_of(parameter).to_owned(), error })
    }

    /// Reads the entry stored in the parameter called `parameter`, which may be a path.
    ///
    /// # Errors
    ///
    /// All problems of the entry. They repeat no value, since values are secrets or next to one.
    pub fn parse(parameter: &str, text: &str) -> Result<Self, SettingsError> {
        let members = serde_json::from_str::<Map<String, Value>>(text);
        let mut reader = SettingsReader::new(|member: &str| {
            let members = members.as_ref().ok()?;
            members.get(member).and_then(Value::as_str).map(str::to_owned)
        });
        let subject = format!("the site entry {parameter} cannot be used");
        // Those who report the error know the commands.
        let remedy = "";
        let Ok(members) = &members else {
            reader.add("its value", "is not a JSON object");
            return reader.finish(None, subject, remedy);
        };
        let name = name_of(parameter).parse::<SiteName>().ok();
        if name.is_none() {
            reader.add(
                "the parameter's name",
                "is not valid: expected it to end in 1 to 40 lower-case letters, digits and hyphens",
            );
        }
        for unknown in members.keys().filter(|member| !MEMBERS.contains(&member.as_str())) {
            reader.add(unknown, format_args!("is not known: allowed are {}", MEMBERS.join(", ")));
        }
        let server = reader.required(
            "server",
            "the https address of the Tableau server without a path, such as https://10ax.online.tableau.com",
            |text| address::parse(text).filter(|url| url.path() == "/"),
        );
        // Not `required`: it may be empty.
        let content_url = members.get("site").and_then(Value::as_str).filter(|site| !site.contains('/'));
        if content_url.is_none() {
            let expected = "the part after /site/ in a browser's address, \"\" for the Default site";
            reader.add("site", format_args!("is missing or not valid: expected {expected}"));
        }
        let token_name =
            reader.required("token_name", "the name of a personal access token", |text| Some(text.to_owned()));
        let token_secret =
            reader.required("token_secret", "the secret of that token", |text| Some(SecretString::from(text)));
        let events = members.get("events").and_then(|events| read_events(events, &mut reader));
        let token_expires = members.get("token_expires").and_then(|end| read_token_end(end, &mut reader));
        let entry = || {
            Some(Self {
                name: name?,
                server: server?,
                content_url: content_url?.to_owned(),
                token_name: token_name?,
                token_secret: token_secret?,
                events,
                token_expires,
            })
        };
        let entry = entry();
        reader.finish(entry, subject, remedy)
    }
}

fn read_events<L: Fn(&str) -> Option<String>>(
    events: &Value,
    reader: &mut SettingsReader<L>,
) -> Option<BTreeSet<Event>> {
    let names = events.as_array().into_iter().flatten().map(|name| name.as_str()?.parse().ok());
    let events = names.collect::<Option<BTreeSet<Event>>>().filter(|events| !events.is_empty());
    if events.is_none() {
        let expected = "a list of event names, such as [\"WorkbookRefreshFailed\"], or no member events";
        reader.add("events", format_args!("is not valid: expected {expected}"));
    }
    events
}

fn read_token_end<L: Fn(&str) -> Option<String>>(end: &Value, reader: &mut SettingsReader<L>) -> Option<TokenEnd> {
    let end = end.as_str().and_then(TokenEnd::parse);
    if end.is_none() {
        let expected = "a date, such as 2027-05-21, or no member token_expires";
        reader.add("token_expires", format_args!("is not valid: expected {expected}"));
    }
    end
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const PARAMETER: &str = "/tableau-fanout/sites/marketing";

    fn error(parameter: &str, text: &str) -> String {
        SiteEntry::parse(parameter, text).expect_err("not usable").to_string()
    }

    #[test]
    fn an_entry_is_read() {
        let text = r#"{"server":"https://10ax.online.tableau.com","site":"mkt","token_name":"fanout",
            "token_secret":"secret","events":["WorkbookCreated","FlowRunFailed"],"token_expires":"2027-05-21"}"#;
        let entry = SiteEntry::parse(PARAMETER, text).expect("usable");
        assert_eq!(entry.name.as_str(), "marketing");
        assert_eq!(entry.server.as_str(), "https://10ax.online.tableau.com/");
        assert_eq!(entry.content_url, "mkt");
        assert_eq!(entry.token_secret.expose_secret(), "secret");
        assert_eq!(entry.events.map(|events| events.len()), Some(2));
        assert_eq!(entry.token_expires, TokenEnd::parse("2027-05-21T00:00:00Z"));
    }

    #[test]
    fn the_default_site_has_an_empty_name_and_two_members_are_optional() {
        let text = r#"{"server":"http://127.0.0.1:8000/","site":"","token_name":"n","token_secret":"s"}"#;
        let entry = SiteEntry::parse(PARAMETER, text).expect("usable");
        assert_eq!((entry.content_url.as_str(), entry.events, entry.token_expires), ("", None, None));
    }

    #[test]
    fn the_error_names_all_problems_and_no_value() {
        let text = r#"{"server":"http://tableau.example/s3cret","site":"a/s3cret","token":"s3cret",
            "token_name":"","token_secret":["s3cret"],"events":["s3cret-event"],"token_expires":"s3cret"}"#;
        insta::assert_snapshot!(error("/tableau-fanout/sites/Marketing", text), @r#"the site entry /tableau-fanout/sites/Marketing cannot be used: the parameter's name is not valid: expected it to end in 1 to 40 lower-case letters, digits and hyphens; token is not known: allowed are server, site, token_name, token_secret, events, token_expires; server is not valid: expected the https address of the Tableau server without a path, such as https://10ax.online.tableau.com; site is missing or not valid: expected the part after /site/ in a browser's address, "" for the Default site; token_name is missing: expected the name of a personal access token; token_secret is missing: expected the secret of that token; events is not valid: expected a list of event names, such as ["WorkbookRefreshFailed"], or no member events; token_expires is not valid: expected a date, such as 2027-05-21, or no member token_expires."#);
    }

    #[test]
    fn a_text_that_is_no_object_is_refused_without_showing_it() {
        for text in ["", "s3cret", "[\"s3cret\"]", "{\"token_secret\":\"s3cret\"", "null"] {
            assert_eq!(
                error(PARAMETER, text),
                "the site entry /tableau-fanout/sites/marketing cannot be used: its value is not a JSON object."
            );
        }
    }
}
