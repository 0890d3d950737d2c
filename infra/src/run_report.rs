//! The reconciler's report, site by site.
//!
//! A run that fails has only the text of its report, since Lambda returns a failure as a text. So the sites of every run are
//! parsed from the text.

use serde::Serialize;

/// The beginning of a line about a test.
const TEST: &str = "? ";

/// The part of such a line before the status of an answer.
const ANSWERED: &str = ": Tableau's test was answered ";

/// The beginning of a line about a problem.
const ERROR: &str = "error: ";

/// The part of a report about one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SitePart {
    /// Your name for the site.
    pub site: String,
    /// The numbers of changes and problems.
    pub summary: String,
    /// Problems because of which the site is not as declared.
    pub errors: Vec<SiteError>,
    /// The number of webhooks that Tableau tested, or was to test.
    #[serde(skip)]
    pub tested: usize,
    /// The number of tests that the receiver accepted.
    #[serde(skip)]
    pub accepted: usize,
}

/// A problem of a site, with the fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiteError {
    /// The description, the fix, and the details.
    pub what: String,
}

impl SitePart {
    /// Parses the text of a report. Skips lines about the whole run.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let mut sites: Vec<Self> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix("  "), sites.last_mut()) {
                (Some(line), Some(site)) => site.add(line),
                (None, _) => sites.extend(Self::begin(line)),
                (Some(_), None) => {}
            }
        }
        sites
    }

    /// Parses the first line about a site.
    fn begin(line: &str) -> Option<Self> {
        let (site, summary) = line.split_once(": ").filter(|(site, _)| !site.contains(char::is_whitespace))?;
        Some(Self { site: site.to_owned(), summary: summary.to_owned(), ..Self::default() })
    }

    fn add(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix(TEST) {
            self.tested += 1;
            let answer = test.split_once(ANSWERED).map(|(_, status)| status);
            self.accepted += usize::from(answer.is_some_and(|status| status.starts_with('2')));
        }
        self.errors.extend(line.strip_prefix(ERROR).map(|what| SiteError { what: what.to_owned() }));
    }

    /// Returns the number of webhooks in words.
    pub fn tests_in_words(&self) -> String {
        let webhooks = if self.tested == 1 { "webhook" } else { "webhooks" };
        if self.accepted == self.tested {
            format!("{} {webhooks} tested", self.tested)
        } else {
            format!("{} of {} {webhooks} failed their test", self.tested - self.accepted, self.tested)
        }
    }
}

impl SiteError {
    /// Splits it into its first sentence, without the period, and the rest.
    pub fn in_short(&self) -> (&str, &str) {
        let (first, rest) = self.what.split_once(". ").unwrap_or((&self.what, ""));
        (first.trim_end_matches('.'), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_of_a_report_is_parsed_with_its_tests_and_errors() {
        let text = "finance: 1 error\n  error: Tableau refused the token \"a\". It is wrong. Create a new one (401)\n\
                    marketing: 2 tested, 1 foreign, 1 error\n  . Theirs: Tableau's test was answered 200\n  \
                    ? fan-ViewDeleted: Tableau's test was answered 200\n  ? fan-WorkbookCreated: Tableau's test got no answer\n  \
                    error: 1 of 2 tests did not reach the receiver, the first of fan-WorkbookCreated.\n\
                    2 of 2 sites failed.\nThe certificates in /a are not used: they are odd.";
        let sites = SitePart::parse_all(text);
        let [finance, marketing] = &sites[..] else { panic!("{sites:?}") };
        assert_eq!((&*finance.site, &*finance.summary, finance.tested), ("finance", "1 error", 0));
        let expected = ("Tableau refused the token \"a\"", "It is wrong. Create a new one (401)");
        assert_eq!(finance.errors[0].in_short(), expected);
        assert_eq!((marketing.tested, marketing.accepted, marketing.errors.len()), (2, 1, 1));
        assert_eq!(marketing.tests_in_words(), "1 of 2 webhooks failed their test");
        assert_eq!(SitePart::parse_all("Nothing to do: there is no site entry under /fan/sites."), []);
    }
}
