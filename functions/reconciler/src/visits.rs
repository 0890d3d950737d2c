//! Which sites a run visits, from their entries as they are stored.

use std::collections::{BTreeMap, btree_map::Entry};

use secrecy::{ExposeSecret, SecretString};
use shared::site::SiteEntry;
use url::Url;

use crate::{explained::unusable, reconciler::name_of, report::SiteReport};

/// Which sites are to be visited, and in whose company.
pub(crate) struct Visits {
    /// The usable entries, by server and token: a token has one session, so its sites cannot be visited at once.
    pub(crate) by_token: BTreeMap<(Url, String), Vec<SiteEntry>>,
    /// Reports on the entries that cannot be used.
    pub(crate) unusable: Vec<SiteReport>,
}

impl Visits {
    pub(crate) fn new(mut stored: Vec<(String, SecretString)>) -> Self {
        // Sorted, so that of two entries for one Tableau site it is always the same that counts.
        stored.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut visits = Self { by_token: BTreeMap::new(), unusable: Vec::new() };
        let mut declared_by = BTreeMap::new();
        for (parameter, value) in stored {
            let entry = match SiteEntry::parse(&parameter, value.expose_secret()) {
                Ok(entry) => entry,
                Err(error) => {
                    visits
                        .unusable
                        .push(SiteReport::of_failure(name_of(&parameter), unusable(error.to_string(), String::new())));
                    continue;
                }
            };
            match declared_by.entry((entry.server.clone(), entry.content_url.clone())) {
                Entry::Vacant(vacant) => {
                    vacant.insert(entry.name.clone());
                    visits.by_token.entry((entry.server.clone(), entry.token_name.clone())).or_default().push(entry);
                }
                Entry::Occupied(first) => {
                    let what =
                        format!("The entry {parameter} declares the same Tableau site as the entry {}.", first.get());
                    let trouble = unusable(what, "Delete one of the two.".to_owned());
                    visits.unusable.push(SiteReport::of_failure(entry.name.as_str(), trouble));
                }
            }
        }
        visits
    }
}
