//! Histories as values: derived at random, shrunk, and printed as a list of steps.

use std::fmt;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select, subsequence},
};
use reconciler::request::Action;
use serde_json::{Map, Value, json};
use tableau_simulator::model::{Oddities, RefreshKind, RefreshOutcome};

use super::{
    crash::{Crash, Point},
    environment::letter,
};

/// The most sites of a history.
const MAX_SITES: usize = 3;

/// The most steps of a history.
const MAX_STEPS: usize = 14;

/// Events that entries ask for and webhooks are changed to. Tableau knows all of them.
pub(super) const EVENTS: [&str; 8] = [
    "DatasourceRefreshFailed",
    "DatasourceRefreshSucceeded",
    "SiteCreated",
    "UserDeleted",
    "ViewDeleted",
    "WorkbookCreated",
    "WorkbookRefreshFailed",
    "WorkbookRefreshStarted",
];

/// The events of the stack, which an entry has by default.
pub(super) const DEFAULT_EVENTS: &str =
    "DatasourceRefreshFailed,DatasourceRefreshSucceeded,ViewDeleted,WorkbookRefreshFailed,WorkbookRefreshStarted";

/// Names that administrators give webhooks. The first six have exactly the form of ours.
const NAMES: [&str; 14] = [
    "fan-DatasourceRefreshFailed",
    "fan-LabelUpdated",
    "fan-NoSuchEvent",
    "fan-UserDeleted",
    "fan-WorkbookCreated",
    "fan-WorkbookRefreshFailed",
    "fan-out-WorkbookCreated",
    "FAN-WorkbookCreated",
    "fan-",
    "fan-Work bookCreated",
    "fan-WorkbookCreated-2",
    "fanWorkbookCreated",
    "my fan-WorkbookCreated",
    "somebody's own",
];

/// Values that are not valid entries.
const UNREADABLE: [&str; 4] = [
    "",
    "{\"token_secret\": \"half of a",
    "{\"server\": \"https://tableau.example\"}",
    "{\"server\": \"https://tableau.example\", \"site\": \"\", \"token_name\": \"n\", \"token_secret\": \"s\", \"event\": []}",
];

/// The names of content that is refreshed.
pub(super) const CONTENT: [&str; 3] = ["Sales 📈", "Staff", "Stock"];

/// A history: declared sites without webhooks, and the steps that follow.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) sites: usize,
    /// Whether they share one token. Otherwise each has its own, and the reconciler processes them concurrently.
    pub(super) shares_token: bool,
    /// Whether a run registers the webhooks before the first step.
    pub(super) is_registered: bool,
    pub(super) steps: Vec<Step>,
}

/// A step. Sites are numbered from 0, modulo the number of sites.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// An entry is stored or deleted.
    Declare(usize, Entry),
    /// An administrator, or Tableau, changes a webhook.
    Drift(usize, Drift),
    /// A fault begins, or all faults of a site or of AWS end.
    Fault(usize, Fault),
    /// Content of a site is refreshed.
    Refresh(usize, Refreshing),
    /// Minutes pass.
    Pass(i64),
    /// The reconciler runs after some minutes. Another run may start at a point of the first, or at its end.
    Run(i64, Run, Option<(Point, Run)>),
}

/// A site's entry.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// It leaves the events to the stack.
    Default,
    /// It asks for these events.
    Wanting(Vec<&'static str>),
    /// It does not exist.
    Missing,
    /// It has this value.
    Unreadable(&'static str),
}

/// A change of a webhook, ours or not. Webhooks are numbered from the oldest, modulo their number.
#[derive(Clone, Debug)]
pub(super) enum Drift {
    Break(usize, Outage),
    ChangeEvent(usize, &'static str),
    Rename(usize, &'static str),
    /// A copy is made, and the original may go down.
    Copy(usize, Option<Outage>),
    Add(&'static str, &'static str),
    /// Tableau lists them in the opposite order.
    Reverse,
}

/// The reason why a webhook delivers nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outage {
    Disabled,
    Deleted,
    Moved,
}

/// A fault of Tableau or AWS.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Tableau has these oddities and no others.
    Odd(Box<Oddities>),
    /// The token's secret is replaced.
    TokenReplaced,
    /// The token's owner is no longer an administrator.
    OwnerDemoted,
    /// SNS accepts no alerts.
    AlertsFail,
    /// SNS accepts some more events, and then no others.
    EventsFail(usize),
    /// SNS refuses messages with this text for good.
    Refused(&'static str),
    /// DynamoDB answers some more calls, and then no others.
    TableFails(usize),
    /// Some writes of runs find another version than they read.
    Conflicts(usize),
    /// Items are deleted.
    Lost(Items),
    /// Items are changed by hand, and no longer valid.
    Edited(Items),
    /// The site has no faults any more.
    SiteOver,
    /// SNS and DynamoDB have no faults any more.
    AwsOver,
}

/// Items of the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Items {
    All,
    Site,
    Run,
    Tokens,
}

/// Refreshes of content.
#[derive(Clone, Debug)]
pub(super) enum Refreshing {
    /// One begins.
    Begin(RefreshKind),
    /// The one that began first ends.
    End(RefreshOutcome),
    /// Some begin and end within a second. The webhook for their end may have gone down before.
    Whole(RefreshKind, RefreshOutcome, usize, Option<Outage>),
    /// One begins and ends, and Tableau lists its job only after the next run.
    ListedLate(RefreshKind, RefreshOutcome),
}

/// A run of the reconciler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) action: Action,
    /// The only site of the run, or none for all sites.
    pub(super) site: Option<usize>,
    /// Whether there is no time for any site.
    pub(super) is_short: bool,
    pub(super) crash: Option<Crash>,
}

/// Returns the strategy for any history.
pub(super) fn any_history() -> impl Strategy<Value = History> {
    (1..=MAX_SITES, any::<bool>(), prop::bool::weighted(0.7), vec(any_step(), 3..=MAX_STEPS))
        .prop_map(|(sites, shares_token, is_registered, steps)| History { sites, shares_token, is_registered, steps })
}

fn any_step() -> impl Strategy<Value = Step> {
    let minutes = || select(&[0_i64, 7, 15, 15, 75, 180][..]);
    prop_oneof![
        12 => (minutes(), any_run(), option::weighted(0.2, (any_point(), any_run())))
            .prop_map(|(minutes, run, other)| Step::Run(minutes, run, other)),
        9 => (any_site(), any_refreshing()).prop_map(|(site, refreshing)| Step::Refresh(site, refreshing)),
        5 => (any_site(), any_drift()).prop_map(|(site, drift)| Step::Drift(site, drift)),
        5 => (any_site(), any_fault()).prop_map(|(site, fault)| Step::Fault(site, fault)),
        2 => (any_site(), any_entry()).prop_map(|(site, entry)| Step::Declare(site, entry)),
        1 => prop_oneof![1_i64..25, Just(75), Just(1500)].prop_map(Step::Pass),
    ]
}

fn any_site() -> impl Strategy<Value = usize> {
    0..MAX_SITES
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => Just(Entry::Default),
        3 => subsequence(EVENTS.to_vec(), 1..=EVENTS.len()).prop_map(Entry::Wanting),
        1 => Just(Entry::Missing),
        1 => select(&UNREADABLE[..]).prop_map(Entry::Unreadable),
    ]
}

fn any_outage() -> impl Strategy<Value = Outage> {
    select(&[Outage::Disabled, Outage::Deleted, Outage::Moved][..])
}

fn any_drift() -> impl Strategy<Value = Drift> {
    let which = || 0_usize..8;
    prop_oneof![
        7 => (which(), any_outage()).prop_map(|(which, outage)| Drift::Break(which, outage)),
        2 => (which(), select(&EVENTS[..])).prop_map(|(which, event)| Drift::ChangeEvent(which, event)),
        2 => (which(), select(&NAMES[..])).prop_map(|(which, name)| Drift::Rename(which, name)),
        4 => (which(), option::of(any_outage())).prop_map(|(which, outage)| Drift::Copy(which, outage)),
        4 => (select(&NAMES[..]), select(&EVENTS[..])).prop_map(|(name, event)| Drift::Add(name, event)),
        1 => Just(Drift::Reverse),
    ]
}

fn any_refreshing() -> impl Strategy<Value = Refreshing> {
    use RefreshOutcome::{Cancelled, Failed, Succeeded};

    let kind = || select(&[RefreshKind::Datasource, RefreshKind::Workbook][..]);
    let outcome = || select(&[Failed, Failed, Failed, Succeeded, Succeeded, Cancelled][..]);
    prop_oneof![
        1 => kind().prop_map(Refreshing::Begin),
        1 => outcome().prop_map(Refreshing::End),
        5 => (kind(), outcome(), 1_usize..4, option::weighted(0.6, any_outage()))
            .prop_map(|(kind, outcome, count, outage)| Refreshing::Whole(kind, outcome, count, outage)),
        1 => (kind(), outcome()).prop_map(|(kind, outcome)| Refreshing::ListedLate(kind, outcome)),
    ]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let items = || select(&[Items::All, Items::Site, Items::Run, Items::Tokens][..]);
    prop_oneof![
        7 => vec((any::<Index>(), any::<Index>()), 1..8).prop_map(|chosen| Fault::Odd(Box::new(oddities(&chosen)))),
        1 => Just(Fault::TokenReplaced),
        1 => Just(Fault::OwnerDemoted),
        2 => Just(Fault::AlertsFail),
        5 => prop_oneof![2 => Just(0), 1 => 1_usize..4].prop_map(Fault::EventsFail),
        1 => select(&CONTENT[..]).prop_map(Fault::Refused),
        1 => prop_oneof![Just(0), 0_usize..10].prop_map(Fault::TableFails),
        1 => (1_usize..4).prop_map(Fault::Conflicts),
        1 => items().prop_map(Fault::Lost),
        1 => items().prop_map(Fault::Edited),
        2 => Just(Fault::SiteOver),
        2 => Just(Fault::AwsOver),
    ]
}

/// Returns the values of each oddity, by the member of [`Oddities`] it is of.
fn odd_values() -> Map<String, Value> {
    let values = json!({
        "empty_list": ["missing", "null", "list"],
        "lone_object": [true],
        "enabled_as_text": [true],
        "event_shape": ["event", "source"],
        "page_size": [1, 2, 3, 100],
        "last_page_missing": [true],
        "update_status": [200],
        "test_body": ["text", "json"],
        "test_status_code": [true],
        "token_is_shared": [true],
        "is_deleted": [true],
        "urls_rewritten": [true],
        // Rows of foreign webhooks that cannot be read in full.
        "odd_webhooks": [
            [{ "id": 4711, "isEnabled": "1", "name": "someone's" }],
            [{ "id": "odd", "name": null, "event": null, "webhook-destination": null }],
            [{ "name": "without an identifier", "isEnabled": [] }],
        ],
        "retry_hint": ["other_words", "date"],
        "error_shape": ["numeric_code", "wrapped", "empty"],
        // A client that cannot read the answer to a sign-in cannot end the session.
        "wrapping": ["byte_order_mark", "gzip"],
        "sign_in_moved_to": ["/pod/api/3.27/auth/signin?from=elsewhere"],
        "too_many_requests": [1, 2, 5],
        "server_errors": [1, 2, 5],
        "failed_changes": [1, 2, 5],
        "lost_answers": [1, 2, 5],
        "broken_answers": [1, 2, 5],
        "html_errors": [true],
        "sessions_gone_after": [0, 1, 2, 3, 4, 6],
        "delay_ms": [1, 4],
        "refuses_site_events": [true],
        "jobs": odd_jobs(),
        "content": odd_content(),
        "token_list": ["not_there", "forbidden", "server_error", "page", "null", "odd_rows"],
    });
    values.as_object().cloned().unwrap_or_default()
}

/// Returns the ways in which all jobs, or those of one name, are odd.
fn odd_jobs() -> Vec<Value> {
    let details =
        ["not_queryable", "forbidden", "not_found", "server_error", "page", "not_found_page", "null", "broken"];
    let of_one = details.map(|detail| json!({ "detail": detail, "only": CONTENT[0] }));
    let of_all = (details.map(|detail| json!({ "detail": detail })).into_iter())
        .chain(["without_id", "null", "number", "text"].map(|row| json!({ "row": row })))
        .chain(["list", "beside", "status_notes", "status_value"].map(|notes| json!({ "notes": notes })));
    let others = [
        json!({ "without_resource": true }),
        json!({ "finish_code": "4" }),
        json!({ "not_listed": 1, "pages_go_on": true }),
        json!({ "too_many_requests": 2 }),
    ];
    of_one.into_iter().chain(of_all).chain(others).collect()
}

/// Returns the ways in which content, users and refresh tasks are odd.
fn odd_content() -> Vec<Value> {
    let answers = ["forbidden", "not_found", "server_error", "page", "not_found_page", "xml", "null", "broken"];
    let instead = ["resource", "user", "tasks"].into_iter().flat_map(|call| answers.map(|it| json!({ call: it })));
    let others = [
        json!({ "on_server": true }),
        json!({ "on_server": true, "schedule_suspended": true }),
        json!({ "missing": ["name", "webpageUrl", "project", "owner", "tags", "fullName"] }),
        json!({ "missing": ["nextRunAt", "consecutiveFailedCount"], "odd_tasks": [null, 7, {}] }),
        json!({ "webpage_url": "https://elsewhere.example/#/site/a/workbooks/1" }),
        json!({ "bare_list": true, "counts_as_text": true, "other_tasks": 100 }),
        json!({ "answered_before": 1, "too_many_requests": 2 }),
    ];
    instead.chain(others).collect()
}

/// Returns oddities: of each choice the member and its value.
fn oddities(chosen: &[(Index, Index)]) -> Oddities {
    let all: Vec<_> = odd_values().into_iter().collect();
    let members = chosen.iter().filter_map(|(member, value)| {
        let (member, values) = member.get(&all);
        Some((member.clone(), value.get(values.as_array()?).clone()))
    });
    let mut oddities: Oddities = serde_json::from_value(Value::Object(members.collect())).unwrap_or_default();
    // A page of jobs that is missing for more than an hour loses them, which the report notes. Without a page of webhooks no
    // jobs are read.
    oddities.last_page_missing &= oddities.page_size.is_some();
    // A wait without a hint lasts 15 s and more: `reconciling.rs` has it.
    oddities.retry_after_seconds = Some(0);
    if oddities.too_many_requests + oddities.jobs.too_many_requests + oddities.content.too_many_requests > 0 {
        (oddities.html_errors, oddities.error_shape) = Default::default();
    }
    oddities
}

fn any_run() -> impl Strategy<Value = Run> {
    let action = prop_oneof![
        16 => Just(Action::Apply),
        8 => Just(Action::Explain),
        4 => Just(Action::Rotate),
        1 => Just(Action::Plan),
        1 => Just(Action::Test),
        1 => Just(Action::Destroy),
    ];
    let crash = (any_point(), 0_usize..5).prop_map(|(point, polls)| Crash { point, polls });
    (action, option::weighted(0.15, any_site()), prop::bool::weighted(0.1), option::weighted(0.4, crash)).prop_map(
        |(action, site, is_short, crash)| {
            // A rotation is for all sites, and an explanation for those in the queue.
            let site = site.filter(|_| !matches!(action, Action::Rotate | Action::Explain));
            Run { action, site, is_short, crash }
        },
    )
}

/// Returns the strategy for a point of a run, which first reads and stores parameters, then makes few calls in most cases and
/// many in some, and then publishes and stores.
fn any_point() -> impl Strategy<Value = Point> {
    let done = prop_oneof![1 => 0_usize..8, 3 => 4_usize..20, 2 => 10_usize..45];
    let any = done.prop_map(|done| Point { of: None, done });
    let of = select(
        &[
            "publish event",
            "publish alert",
            "store site",
            "store run",
            "hold token",
            "release token",
            "PUT ",
            "POST sites",
        ][..],
    );
    let late = (of, 1_usize..4).prop_map(|(of, done)| Point { of: Some(of), done });
    prop_oneof![any, late]
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sites, shares_token, is_registered, steps } = self;
        let tokens = if *shares_token { "one token" } else { "a token each" };
        let registered = if *is_registered { "registered" } else { "new" };
        writeln!(formatter, "{sites} {registered} sites with {tokens}")?;
        let mut steps = steps.iter().zip(1..);
        steps.try_for_each(|(step, number)| writeln!(formatter, "{number:3}. {}", step.describe(*sites)))
    }
}

impl Step {
    /// Describes the step, for that many sites.
    fn describe(&self, sites: usize) -> String {
        let site = |site: &usize| letter(site % sites);
        match self {
            Self::Declare(at, entry) => format!("entry of {}: {entry:?}", site(at)),
            Self::Drift(at, drift) => format!("webhooks of {}: {drift:?}", site(at)),
            Self::Fault(at, Fault::Odd(oddities)) => format!("Tableau's {}: {}", site(at), describe(oddities)),
            Self::Fault(at, fault) => format!("fault at {}: {fault:?}", site(at)),
            Self::Refresh(at, refreshing) => format!("refreshes of {}: {refreshing:?}", site(at)),
            Self::Pass(minutes) => format!("{minutes} minutes pass"),
            Self::Run(minutes, run, None) => format!("{} after {minutes} minutes", run.describe(sites)),
            Self::Run(minutes, run, Some((point, other))) => {
                let (run, other) = (run.describe(sites), other.describe(sites));
                format!("{run} after {minutes} minutes; at {point} of it, {other}")
            }
        }
    }
}

impl Run {
    fn describe(&self, sites: usize) -> String {
        let Self { action, site, is_short, crash } = self;
        let site = site.map_or_else(String::new, |site| format!(" of {}", letter(site % sites)));
        let short = if *is_short { " without time" } else { "" };
        let crash = crash.map_or_else(String::new, |crash| format!(", {crash},"));
        format!("{action:?}{site}{short}{crash}")
    }
}

/// Lists the oddities that Tableau has.
fn describe(oddities: &Oddities) -> String {
    fn differences(value: &Value, default: &Value) -> Vec<String> {
        let members = value.as_object().into_iter().flatten().filter(|(member, value)| default[*member] != **value);
        let described = members.flat_map(|(member, value)| match &default[member] {
            default @ Value::Object(_) => differences(value, default),
            _ => vec![format!("{member} {value}")],
        });
        described.collect()
    }

    differences(&json!(oddities), &json!(Oddities::default())).join(", ")
}

#[test]
fn every_oddity_but_those_with_tests_of_their_own_is_in_histories() {
    let (mut all, odd_values) = (json!(Oddities::default()), odd_values());
    for (member, values) in odd_values {
        all.as_object_mut().and_then(|all| all.remove(&member)).expect("an oddity");
        for value in values.as_array().expect("values") {
            let odd = json!({ member.clone(): value });
            assert!(serde_json::from_value::<Oddities>(odd.clone()).is_ok(), "{odd}");
        }
    }
    let left: Vec<_> = all.as_object().expect("an object").keys().collect();
    assert_eq!(left, ["echo", "hostility", "retry_after_seconds"]);
}
