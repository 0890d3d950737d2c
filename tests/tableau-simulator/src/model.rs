//! What a Tableau server knows: sites, webhooks, tokens, sessions, and the refreshes that ran.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::events::catalogue::Event;
use time::OffsetDateTime;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::echo::Echo;

/// Why Tableau disables a webhook, in its own words.
const FAILED_TOO_OFTEN: &str = "Webhook disabled after 4 failed delivery attempts.";

/// A Tableau server.
#[derive(Debug)]
pub struct World {
    /// The sites by contentUrl.
    pub sites: BTreeMap<String, Site>,
    /// The newest version of the REST API that is served, as major and minor number.
    pub newest_version: (u32, u32),
    /// This many calls for the server's own version are answered with 500.
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
    /// The personal access tokens that can sign in to it.
    pub tokens: Vec<AccessToken>,
    /// The token of every session that was ever opened at it.
    pub sessions: Vec<String>,
    /// Its webhooks, in the order they were made.
    pub webhooks: Vec<Webhook>,
    /// The extract refreshes that ran.
    pub jobs: Vec<Job>,
    /// The extract refreshes that run again and again.
    pub schedules: Vec<Schedule>,
    /// How it deviates from the newest documentation.
    pub oddities: Oddities,
    /// The calls it was sent, as method and path.
    pub calls: Vec<String>,
}

/// A personal access token and its one session.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Its name.
    pub name: String,
    /// Its secret.
    pub secret: String,
    /// Whether its owner administers the site.
    pub is_administrator: bool,
    /// The session that was opened with it last. A token never has two.
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
    /// Where the event is sent.
    pub url: String,
    /// Whether events are sent at all.
    pub is_enabled: bool,
    /// Why it was disabled.
    pub status_change_reason: Option<String>,
}

/// An extract refresh that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its identifier.
    pub id: String,
    /// What was refreshed.
    pub kind: RefreshKind,
    /// Identifier of what was refreshed.
    pub luid: String,
    /// Name of what was refreshed.
    pub name: String,
    /// How it ended.
    pub outcome: RefreshOutcome,
    /// Whether only new rows were fetched.
    pub is_incremental: bool,
    /// Whether the data came through Tableau Bridge.
    pub is_via_bridge: bool,
    /// When it began: the true time, whatever the server's clock says.
    pub started_at: OffsetDateTime,
    /// When it ended, likewise.
    pub ended_at: OffsetDateTime,
    /// Why it failed.
    pub notes: Option<String>,
}

/// The kinds of things that have extracts.
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
    /// As it should.
    Succeeded,
    /// For a reason that the job's notes tell.
    Failed,
    /// By somebody's hand. Tableau has no event for it.
    Cancelled,
}

/// A refresh that runs again and again, until this is dropped.
#[derive(Debug)]
pub struct Schedule {
    /// Name of what is refreshed.
    pub name: String,
    pub(crate) task: AbortHandle,
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a site deviates from the newest documentation: each an oddity that was documented or seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oddities {
    /// How an empty list of webhooks or jobs is written in JSON.
    pub empty_list: EmptyList,
    /// A list of one webhook or job is that itself, in JSON.
    pub lone_object: bool,
    /// `isEnabled` is a text in JSON.
    pub enabled_as_text: bool,
    /// How a webhook's event is told.
    pub event_shape: EventShape,
    /// A webhook's URL is told with its host in upper case and the default port.
    pub urls_rewritten: bool,
    /// Rows that a list of webhooks begins with, in JSON, whatever they are.
    pub odd_webhooks: Vec<Value>,
    /// Lists come in pages of this many webhooks, and of no more jobs.
    pub page_size: Option<usize>,
    /// The last page is never there.
    pub last_page_missing: bool,
    /// Every sign-in but one to this very address is answered with a 301 and this `Location`. What it has before `/api/` is
    /// then part of every address of the site.
    pub sign_in_moved_to: Option<String>,
    /// The status of an update; 201 if not set, as documented.
    pub update_status: Option<u16>,
    /// This many calls (sign-in and sign-out aside) are answered with 429, the wait told in the text alone.
    pub too_many_requests: usize,
    /// How many seconds a 429 asks to wait, unless it is half an hour.
    pub retry_after_seconds: Option<u64>,
    /// Where a 429 says that.
    pub retry_hint: RetryHint,
    /// This many calls (sign-in and sign-out aside) are answered with 500.
    pub server_errors: usize,
    /// This many calls that change something are answered with 500 and not carried out.
    pub failed_changes: usize,
    /// This many calls that change something are carried out, and answered with 500 all the same.
    pub lost_answers: usize,
    /// This many calls that change something are carried out, and then the connection breaks off within the answer.
    pub broken_answers: usize,
    /// Errors are HTML pages.
    pub html_errors: bool,
    /// How other errors are written in JSON.
    pub error_shape: ErrorShape,
    /// In what its answers in JSON are wrapped, which nobody asked for.
    pub wrapping: Wrapping,
    /// After this many more calls the site's sessions are gone, once.
    pub sessions_gone_after: Option<usize>,
    /// Somebody else signs in with the site's token before each call, which ends the session.
    pub token_is_shared: bool,
    /// The site is deleted as soon as somebody signed in to it.
    pub is_deleted: bool,
    /// Every answer takes this many milliseconds more.
    pub delay_ms: u64,
    /// Webhooks for SiteCreated and SiteUpdated are refused.
    pub refuses_site_events: bool,
    /// What the test call delivers.
    pub test_body: TestBody,
    /// The result of a test spells its status `statusCode`.
    pub test_status_code: bool,
    /// A secret that it quotes.
    pub echo: Option<Echo>,
    /// What it does to whoever lists its webhooks.
    pub hostility: Option<Hostility>,
    /// How its jobs deviate.
    pub jobs: JobOddities,
}

/// How a site's jobs deviate from the newest documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobOddities {
    /// This many calls for jobs are answered with 429, the wait told in the text alone.
    pub too_many_requests: usize,
    /// This many more jobs are pluralize in `totalAvailable` than are on the pages.
    pub not_listed: usize,
    /// A page after the last is empty, and no error.
    pub pages_go_on: bool,
    /// The server's clock is ahead by this many seconds, or behind: its jobs' and events' times and its `Date`.
    pub clock_offset_seconds: i64,
    /// Name of what is refreshed by the jobs that the following concerns; every job if not set.
    pub only: Option<String>,
    /// The shape of a job's row in the list, if it is broken.
    pub row: Option<OddRow>,
    /// The answer to a call for a job, if it is not the job.
    pub detail: Option<OddDetail>,
    /// A job does not say what it refreshed.
    pub without_resource: bool,
    /// A job does not say when it ended.
    pub without_end: bool,
    /// A job's finish code, such as 4, which is not documented.
    pub finish_code: Option<String>,
    /// A job's type.
    pub job_type: Option<String>,
    /// The place and shape of a job's notes.
    pub notes: NotesShape,
}

/// A row of a list of jobs that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OddRow {
    /// It has no `id`.
    WithoutId,
    /// It is `null`.
    Null,
    /// It is a number.
    Number,
    /// It is a text.
    Text,
}

/// An answer to a call for a job that is not the job.
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
    /// `{"job":null}`.
    Null,
    /// A body that breaks off.
    Broken,
}

/// The place and shape of a job's notes. All were seen.
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

/// How a webhook's event is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventShape {
    /// By the `event` attribute and the older `webhook-source` element.
    #[default]
    Both,
    /// By the `event` attribute alone.
    Event,
    /// By the `webhook-source` element alone.
    Source,
}

/// Where a 429 says how long to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryHint {
    /// In its text, and in a `Retry-After` header if it is not half an hour.
    #[default]
    Usual,
    /// In other words of its text.
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
    /// In an object of another, and in a list.
    Wrapped,
    /// Not at all: the body is empty.
    Empty,
}

/// What an answer in JSON is wrapped in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrapping {
    /// Nothing.
    #[default]
    None,
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// It is compressed.
    Gzip,
    /// It is compressed, in a way that nobody can read.
    Unknown,
}

/// What a server does that is broken, or that somebody else has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hostility {
    /// An answer that has no end.
    EndlessAnswer,
    /// An error that has no end.
    EndlessError,
    /// One small page after another.
    EndlessPages,
    /// One large page after another.
    LargePages,
    /// A few bytes each second, without end.
    Drip,
    /// Some kilobytes that are many megabytes when they are decompressed.
    Bomb,
    /// A list whose items take a hundred times as much memory as they are long.
    ManyValues,
    /// A list in a list, and so on.
    Nested,
    /// Sign-ins that are sent on to where they are.
    SignInLoop,
}

/// What the test call delivers. Accounts differ; all three were reported.
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
            tokens: Vec::new(),
            sessions: Vec::new(),
            webhooks: Vec::new(),
            jobs: Vec::new(),
            schedules: Vec::new(),
            oddities: Oddities::default(),
            calls: Vec::new(),
        };
        site.add_token(token_name, token_secret);
        self.sites.entry(content_url.to_owned()).insert_entry(site).into_mut()
    }
}

impl Site {
    /// Adds an administrator's token.
    pub fn add_token(&mut self, name: &str, secret: &str) {
        let (name, secret) = (name.to_owned(), secret.to_owned());
        self.tokens.push(AccessToken { name, secret, is_administrator: true, session: None });
    }

    /// What every address of the site has before `/api/`: nothing, unless sign-ins are sent on to where there is more.
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
    /// Disables it, for the reason that Tableau has unless there is another.
    pub fn disable(&mut self, reason: Option<String>) {
        self.is_enabled = false;
        self.status_change_reason = Some(reason.unwrap_or_else(|| FAILED_TOO_OFTEN.to_owned()));
    }
}
