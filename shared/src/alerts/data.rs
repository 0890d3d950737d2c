//! Alerts as JSON, for programs: the text of the protocols `sqs` and `lambda`.

use serde::{Deserialize, Serialize};

/// An alert for programs. Its texts are plain: no text that came from Tableau is markup, a mention or a link in them, or changes
/// the direction of other text.
///
/// ```
/// use shared::alerts::data::{AlertData, AlertKind, Severity};
///
/// let text = r#"{
///     "kind": "refresh-failed",
///     "severity": "error",
///     "title": "workbook refresh failed: Regional Sales",
///     "text": "The extract refresh of the workbook \"Regional Sales\" failed.",
///     "next_steps": [],
///     "links": [],
///     "sites": ["marketing"],
///     "resource": { "kind": "workbook", "id": "5998aaaf", "name": "Regional Sales" },
///     "thread": "marketing/5998aaaf",
///     "resolved": false,
///     "event_id": "e5382930c3df8e121f80ac403357ca8b"
/// }"#;
/// let alert: AlertData = serde_json::from_str(text)?;
/// assert_eq!((alert.kind, alert.severity), (AlertKind::RefreshFailed, Severity::Error));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertData {
    /// Its subject.
    pub kind: AlertKind,
    /// How urgent it is.
    pub severity: Severity,
    /// A few words, without the site.
    pub title: String,
    /// Sentences, perhaps on several lines.
    pub text: String,
    /// The next steps of a reader; none if there are links instead.
    pub next_steps: Vec<String>,
    /// Pages to open.
    pub links: Vec<AlertLink>,
    /// The site, if there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The names of all sites.
    pub sites: Vec<String>,
    /// The workbook or other resource, if there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<AlertResource>,
    /// The same for all alerts about one matter: a failure, its reason and its end, or a problem and its end.
    pub thread: String,
    /// Whether it says that the matter is over.
    pub resolved: bool,
    /// Identifier of the event, or of the alert if there is no event. A repetition has the same.
    pub event_id: String,
}

/// The subject of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A refresh failed. The reason may follow.
    RefreshFailed,
    /// The reason of one or several failed refreshes.
    RefreshExplained,
    /// Resources that failed refresh again.
    RefreshResolved,
    /// Resources that failed are not refreshed any more.
    RefreshStopped,
    /// Events that Tableau did not deliver were recovered.
    RefreshRecovered,
    /// Another event.
    Event,
    /// A problem of sites or of the reconciler.
    Problem,
    /// Such a problem is over.
    ProblemSolved,
    /// The outcome of a requested test.
    Test,
    /// An alarm of CloudWatch, which the forwarder reads as an alert.
    Alarm,
}

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing needs to be done.
    Info,
    /// Something needs attention in time.
    Warning,
    /// Something fails.
    Error,
}

/// A page to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLink {
    /// The page, as a step, such as `Open the workbook`.
    pub label: String,
    /// Its address: https, or http of a server without TLS.
    pub url: String,
}

/// The resource that an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertResource {
    /// Its kind, such as `workbook`.
    pub kind: String,
    /// Tableau's identifier.
    pub id: String,
    /// Its name, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of its project, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}
