//! State of a Tableau server: sites, webhooks, tokens, sessions, refreshes, and content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::events::catalogue::Event;
use time::OffsetDateTime;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::{
    content::{Catalog, ContentOddities},
    echo::Echo,
    tokens::TokenList,
};

/// Tableau's reason for disabling a webhook.
const FAILED_TOO_OFTEN: &str = "Webhook disabled after 4 failed delivery attempts.";

/// A Tableau server.
#[derive(Debug)]
pub struct World {
    /// The sites by contentUrl.
    pub sites: BTreeMap<String, Site>,
    /// The newest version of the REST API, as major and minor number.
    pub newest_version: (u32, u32),
    /// This many calls for the server's version are answered with 500.
    pub server_info_errors: usize,
}

impl Default for World {
    fn default() -> Self {
        Self { sites: BTreeMap::new(), newest_version: (3, 27), server_info_errors: 0 }
    }
}

/// A site.
#[derive(Debug)]
pub struct Site {
    /// Its identifier (LUID).
    pub id: String,
    /// The part of its address after `/site/`.
    pub content_url: String,
    /// Identifier of the user who owns its tokens.
    pub owner_id: String,
    /// The personal access tokens that can sign in to it.
    pub tokens: Vec<AccessToken>,
    /// The token of every session that was ever opened.
    pub sessions: Vec<String>,
    /// Its webhooks in order of creation.
    pub webhooks: Vec<Webhook>,
    /// The extract refreshes that ran.
    pub jobs: Vec<Job>,
    /// The seconds for which a job is not listed after it ended, by the job's identifier.
    pub listed_late: BTreeMap<String, u32>,
    /// Its workbooks and data sources.
    pub catalog: Catalog,
    /// The extract refreshes that run repeatedly.
    pub schedules: Vec<Schedule>,
    /// How it deviates from the newest documentation.
    pub oddities: Oddities,
    /// The calls it received, as method and path.
    pub calls: Vec<String>,
}

/// A personal access token and its one session.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Its name.
    pub name: String,
    /// Its secret.
    pub secret: String,
    /// Its identifier, as the list of tokens shows it.
    pub guid: String,
    /// When it ends; never if not set.
    pub ends_at: Option<OffsetDateTime>,
    /// When it was last used.
    pub last_used_at: Option<OffsetDateTime>,
    /// Whether its owner administers the site.
    pub is_administrator: bool,
    /// Its latest session. A token never has two.
    pub session: Option<String>,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// Its identifier.
    pub id: String,
    /// Its name. Not unique.
    pub name: String,
    /// The event it is for.
    pub event: Event,
    /// The event's destination.
    pub url: String,
    /// Whether it is enabled.
    pub is_enabled: bool,
    /// The reason why it was disabled.
    pub status_change_reason: Option<String>,
}

/// A finished extract refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its identifier.
    pub id: String,
    /// The kind of refreshed resource.
    pub kind: RefreshKind,
    /// Identifier of the refreshed resource.
    pub luid: String,
    /// Name of the refreshed resource.
    pub name: String,
    /// How it ended.
    pub outcome: RefreshOutcome,
    /// Whether only new rows were fetched.
    pub is_incremental: bool,
    /// Whether the data came through Tableau Bridge.
    pub is_via_bridge: bool,
    /// When it began, by the true time and not the server's clock.
    pub started_at: OffsetDateTime,
    /// When it ended, likewise.
    pub ended_at: OffsetDateTime,
    /// The reason why it failed.
    pub notes: Option<String>,
}

/// The kinds of resources that have extracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshKind {
    /// A published data source.
    Datasource,
    /// A workbook.
    Workbook,
}

/// How a refresh ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshOutcome {
    /// It succeeds.
    Succeeded,
    /// It fails. The job's notes say why.
    Failed,
    /// A user cancels it. Tableau has no event for this.
    Cancelled,
}

/// A refresh that runs repeatedly until this is dropped.
#[derive(Debug)]
pub struct Schedule {
    /// Name of the refreshed resource.
    pub name: String,
    pub(crate) task: AbortHandle,
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a site deviates from the newest documentation. Each oddity was documented or observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oddities {
    /// How an empty list of webhooks or jobs is written in JSON.
    pub empty_list: EmptyList,
    /// A list of one webhook or job is a single object in JSON.
    pub lone_object: bool,
    /// `isEnabled` is a text in JSON.
    pub enabled_as_text: bool,
    /// How a webhook's event is written.
    pub event_shape: EventShape,
    /// A webhook's URL is written with its host in upper case and the default port.
    pub urls_rewritten: bool,
    /// Rows of any JSON at the beginning of a list of webhooks.
    pub odd_webhooks: Vec<Value>,
    /// Lists have pages of this many webhooks, and of at most this many jobs.
    pub page_size: Option<usize>,
    /// The last page is empty.
    pub last_page_missing: bool,
    /// Every sign-in at another URL is answered with a 301 and this `Location`. Its path before `/api/` is then part of every
    /// URL of the site.
    pub sign_in_moved_to: Option<String>,
    /// The status of an update; 201 if not set, as documented.
    pub update_status: Option<u16>,
    /// This many calls (except sign-in and sign-out) are answered with 429, with the wait in the text only.
    pub too_many_requests: usize,
    /// The wait of a 429 in seconds; half an hour if not set.
    pub retry_after_seconds: Option<u64>,
    /// Where a 429 states the wait.
    pub retry_hint: RetryHint,
    /// This many calls (except sign-in and sign-out) are answered with 500.
    pub server_errors: usize,
    /// This many changes are answered with 500 and not carried out.
    pub failed_changes: usize,
    /// This many changes are carried out and still answered with 500.
    pub lost_answers: usize,
    /// This many changes are carried out, and the connection breaks within the answer.
    pub broken_answers: usize,
    /// Errors are HTML pages.
    pub html_errors: bool,
    /// How other errors are written in JSON.
    pub error_shape: ErrorShape,
    /// An encoding of its JSON answers that the client did not ask for.
    pub wrapping: Wrapping,
    /// After this many more calls the site's sessions end, once.
    pub sessions_gone_after: Option<usize>,
    /// Another client signs in with the site's token before each call, which ends the session.
    pub token_is_shared: bool,
    /// The site is deleted after a sign-in.
    pub is_deleted: bool,
    /// Every answer takes this many milliseconds more.
    pub delay_ms: u64,
    /// Webhooks for SiteCreated and SiteUpdated are refused.
    pub refuses_site_events: bool,
    /// The body that the test call delivers.
    pub test_body: TestBody,
    /// The result of a test spells its status `statusCode`.
    pub test_status_code: bool,
    /// A secret that it quotes.
    pub echo: Option<Echo>,
    /// A hostile answer to a list of webhooks.
    pub hostility: Option<Hostility>,
    /// How its jobs deviate.
    pub jobs: JobOddities,
    /// How its content deviates.
    pub content: ContentOddities,
    /// How the list of a user's tokens deviates.
    pub token_list: TokenList,
}

/// How a site's jobs deviate from the newest documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobOddities {
    /// This many calls for jobs are answered with 429, with the wait in the text only.
    pub too_many_requests: usize,
    /// `totalAvailable` counts this many more jobs than the pages have.
    pub not_listed: usize,
    /// A page after the last is empty, and no error.
    pub pages_go_on: bool,
    /// Skew of the server's clock in seconds: of its jobs' and events' times and of its `Date`.
    pub clock_offset_seconds: i64,
    /// Name of the resource whose jobs the following members apply to; every job if not set.
    pub only: Option<String>,
    /// The shape of a job's row in the list, if it is broken.
    pub row: Option<OddRow>,
    /// The answer to a call for a job, instead of the job.
    pub detail: Option<OddDetail>,
    /// A job does not name the refreshed resource.
    pub without_resource: bool,
    /// A job has no end time.
    pub without_end: bool,
    /// A job's finish code, such as 4, which is not documented.
    pub finish_code: Option<String>,
    /// A job's type.
    pub job_type: Option<String>,
    /// The place and shape of a job's notes.
    pub notes: NotesShape,
}

/// An unreadable row of a list of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OddRow {
    /// It has no `id`.
    WithoutId,
    /// It is `null`.
    Null,
    /// It is a number.
    Number,
    /// It is a string.
    Text,
}

/// An answer to a call for a job, content, a user or tasks, instead of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OddDetail {
    /// 400 / 400031, as for the job of a `createExtract`.
    NotQueryable,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 500.
    ServerError,
    /// An HTML page with 200.
    Page,
    /// An HTML page with 404.
    NotFoundPage,
    /// XML, although JSON was asked for.
    Xml,
    /// `{"job":null}`.
    Null,
    /// An incomplete body.
    Broken,
}

/// The place and shape of a job's notes. All were observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotesShape {
    /// `"notes": "…"` within the refresh.
    #[default]
    Text,
    /// `"notes": ["…"]` within the refresh.
    List,
    /// `"notes": "…"` beside the refresh.
    Beside,
    /// `"statusNotes": {"statusNote": [{"type", "value", "text"}, …]}` beside the refresh.
    StatusNotes,
    /// The same with one note, which is no list.
    LoneStatusNote,
    /// The same with the reason as `value`, and without `text`.
    StatusValue,
}

impl JobOddities {
    /// Returns those of one job.
    pub(crate) fn of(&self, job: &Job) -> Self {
        if self.only.as_ref().is_none_or(|name| *name == job.name) {
            return self.clone();
        }
        Self { clock_offset_seconds: self.clock_offset_seconds, ..Self::default() }
    }
}

/// How an empty list of webhooks is written: `{"webhooks": …}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyList {
    /// `{}`
    #[default]
    Object,
    /// The member is missing.
    Missing,
    /// `null`
    Null,
    /// `[]`
    List,
}

/// How a webhook's event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventShape {
    /// As the `event` attribute and the older `webhook-source` element.
    #[default]
    Both,
    /// As the `event` attribute only.
    Event,
    /// As the `webhook-source` element only.
    Source,
}

/// Where a 429 states the wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryHint {
    /// In its text, and in a `Retry-After` header if it is not half an hour.
    #[default]
    Usual,
    /// In its text, in other words.
    OtherWords,
    /// In a `Retry-After` header with a date.
    Date,
    /// Nowhere.
    Nowhere,
}

/// How an error is written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorShape {
    /// As documented.
    #[default]
    Usual,
    /// Its code is a number.
    NumericCode,
    /// In another object, and in a list.
    Wrapped,
    /// The body is empty.
    Empty,
}

/// Encoding of a JSON answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrapping {
    /// Nothing.
    #[default]
    None,
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// Gzip.
    Gzip,
    /// Unreadable bytes, declared as Brotli.
    Unknown,
}

/// An answer of a broken or hijacked server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hostility {
    /// An endless answer.
    EndlessAnswer,
    /// An endless error.
    EndlessError,
    /// One small page after another.
    EndlessPages,
    /// One large page after another.
    LargePages,
    /// A few bytes each second, endlessly.
    Drip,
    /// Some kilobytes that decompress to many megabytes.
    Bomb,
    /// A list whose items take a hundred times their length in memory.
    ManyValues,
    /// Nested lists.
    Nested,
    /// Sign-ins that are redirected to the same URL.
    SignInLoop,
}

/// The body that the test call delivers. All three were reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestBody {
    /// Nothing.
    #[default]
    Empty,
    /// Plain text.
    Text,
    /// JSON with `event_type` `Test`.
    Json,
}

impl World {
    /// Adds a site with one administrator's token.
    pub fn add_site(&mut self, content_url: &str, token_name: &str, token_secret: &str) -> &mut Site {
        let mut site = Site {
            id: Uuid::new_v4().to_string(),
            content_url: content_url.to_owned(),
            owner_id: Uuid::new_v4().to_string(),
            tokens: Vec::new(),
            sessions: Vec::new(),
            webhooks: Vec::new(),
            jobs: Vec::new(),
            listed_late: BTreeMap::new(),
            catalog: Catalog::default(),
            schedules: Vec::new(),
            oddities: Oddities::default(),
            calls: Vec::new(),
        };
        site.add_token(token_name, token_secret);
        self.sites.entry(content_url.to_owned()).insert_entry(site).into_mut()
    }
}

impl Site {
    /// Adds an administrator's token that does not end.
    pub fn add_token(&mut self, name: &str, secret: &str) {
        self.tokens.push(AccessToken {
            name: name.to_owned(),
            secret: secret.to_owned(),
            guid: Uuid::new_v4().to_string(),
            ends_at: None,
            last_used_at: None,
            is_administrator: true,
            session: None,
        });
    }

    /// Returns the path before `/api/` in every URL of the site. Only redirected sign-ins give it one.
    pub(crate) fn path_prefix(&self) -> &str {
        let location = self.oddities.sign_in_moved_to.as_deref().unwrap_or_default();
        let path = location.split_once("//").map_or(Some(location), |(_, rest)| Some(&rest[rest.find('/')?..]));
        path.and_then(|path| path.split_once("/api/")).map_or("", |(prefix, _)| prefix)
    }

    /// Whether any session is open.
    pub fn has_session(&self) -> bool {
        self.tokens.iter().any(|token| token.session.is_some())
    }
}

impl Webhook {
    /// Disables it, for Tableau's usual reason if none is given.
    pub fn disable(&mut self, reason: Option<String>) {
        self.is_enabled = false;
        self.status_change_reason = Some(reason.unwrap_or_else(|| FAILED_TOO_OFTEN.to_owned()));
    }
}
