//! Histories of sites and their webhooks, as values that are derived at random and printed for people.

use std::fmt;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use reconciler::request::Action;
use serde_json::{Value, json};
use tableau_simulator::model::{
    EmptyList, ErrorShape, EventShape, JobOddities, Oddities, RetryHint, TestBody, Wrapping,
};

use super::super::{
    crash::Crash,
    environment::{describe, letter},
};

/// The most sites of a history.
const MAX_SITES: usize = 3;

/// The most steps of a history.
const MAX_STEPS: usize = 12;

/// Events that entries ask for and webhooks are changed to. Tableau knows all of them.
const EVENTS: [&str; 6] = [
    "DatasourceRefreshFailed",
    "SiteCreated",
    "UserDeleted",
    "ViewDeleted",
    "WorkbookCreated",
    "WorkbookRefreshFailed",
];

/// Names that people give webhooks. The first six have exactly the form of ours.
const NAMES: [&str; 14] = [
    "fan-DatasourceRefreshFailed",
    "fan-LabelUpdated",
    "fan-NoSuchEvent",
    "fan-UserDeleted",
    "fan-ViewDeleted",
    "fan-WorkbookCreated",
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

/// A history: declared sites without webhooks, and the steps that follow.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) sites: usize,
    /// Whether they share one token. Otherwise each has its own, and the reconciler processes them concurrently.
    pub(super) shares_token: bool,
    pub(super) steps: Vec<Step>,
}

/// A step. Sites are numbered from 0, modulo the number of sites.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Somebody stores an entry, or deletes it.
    Declare(usize, Entry),
    /// Somebody, or Tableau, changes a webhook.
    Drift(usize, Drift),
    /// A fault begins, or all of a site end.
    Fault(usize, Fault),
    /// The reconciler runs, perhaps twice at the same time.
    Run(Run, Option<Run>),
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
    Disable(usize, Option<&'static str>),
    Delete(usize),
    Move(usize),
    ChangeEvent(usize, &'static str),
    Rename(usize, &'static str),
    Copy(usize, Original),
    Add(&'static str, &'static str),
    /// Tableau lists them in the opposite order.
    Reverse,
}

/// A change of the webhook of which somebody makes a copy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Original {
    Kept,
    Disabled,
    Moved,
}

/// A fault.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Tableau has these oddities and no others.
    Odd(Box<Oddities>),
    /// The token's secret is replaced.
    TokenReplaced,
    /// The token's owner is no longer an administrator.
    OwnerDemoted,
    /// Alerts of all sites cannot be published.
    AlertsFail,
    /// The site has no faults any more, and alerts can be published.
    Over,
}

/// A run of the reconciler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) action: Action,
    /// The only site of the run, or none for all sites.
    pub(super) site: Option<usize>,
    /// Whether the time is enough for some of the sites only.
    pub(super) is_short: bool,
    /// The point at which it is cut off.
    pub(super) crash: Option<Crash>,
}

/// Returns the strategy for any history.
pub(super) fn any_history() -> impl Strategy<Value = History> {
    (2..=MAX_SITES, any::<bool>(), vec(any_step(), 1..=MAX_STEPS)).prop_map(|(sites, shares_token, steps)| History {
        sites,
        shares_token,
        steps,
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (any_run(), option::weighted(0.15, any_run())).prop_map(|(run, other)| Step::Run(run, other)),
        6 => (any_site(), any_drift()).prop_map(|(site, drift)| Step::Drift(site, drift)),
        3 => (any_site(), any_fault()).prop_map(|(site, fault)| Step::Fault(site, fault)),
        2 => (any_site(), any_entry()).prop_map(|(site, entry)| Step::Declare(site, entry)),
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

fn any_drift() -> impl Strategy<Value = Drift> {
    let which = || 0_usize..8;
    let original = select(&[Original::Kept, Original::Disabled, Original::Moved][..]);
    let reason = option::of(Just("Webhook disabled after 4 failed delivery attempts."));
    prop_oneof![
        3 => (which(), reason).prop_map(|(which, reason)| Drift::Disable(which, reason)),
        2 => which().prop_map(Drift::Delete),
        2 => which().prop_map(Drift::Move),
        2 => (which(), select(&EVENTS[..])).prop_map(|(which, event)| Drift::ChangeEvent(which, event)),
        2 => (which(), select(&NAMES[..])).prop_map(|(which, name)| Drift::Rename(which, name)),
        4 => (which(), original).prop_map(|(which, original)| Drift::Copy(which, original)),
        4 => (select(&NAMES[..]), select(&EVENTS[..])).prop_map(|(name, event)| Drift::Add(name, event)),
        1 => Just(Drift::Reverse),
    ]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => any_oddities().prop_map(|oddities| Fault::Odd(Box::new(oddities))),
        1 => Just(Fault::TokenReplaced),
        1 => Just(Fault::OwnerDemoted),
        1 => Just(Fault::AlertsFail),
        2 => Just(Fault::Over),
    ]
}

/// Returns the default most of the time.
fn rarely<T: Clone + fmt::Debug>(default: T, odd: impl Strategy<Value = T>) -> impl Strategy<Value = T> {
    prop_oneof![6 => Just(default), 1 => odd]
}

/// Returns the strategy for all oddities. It names each of them, so that a new one does not compile until it is added.
fn any_oddities() -> impl Strategy<Value = Oddities> {
    let shapes = (
        select(&[EmptyList::Object, EmptyList::Missing, EmptyList::Null, EmptyList::List][..]),
        any::<bool>(),
        any::<bool>(),
        select(&[EventShape::Both, EventShape::Event, EventShape::Source][..]),
        rarely(None, prop_oneof![(1_usize..4).prop_map(Some), Just(Some(100))]),
        rarely(false, Just(true)),
        option::of(Just(200)),
        select(&[TestBody::Empty, TestBody::Text, TestBody::Json][..]),
        any::<bool>(),
        rarely(false, Just(true)),
        rarely(false, Just(true)),
    );
    let writing = (
        any::<bool>(),
        rarely(Vec::new(), subsequence(odd_webhooks(), 1..=3)),
        select(&[RetryHint::Usual, RetryHint::OtherWords, RetryHint::Date][..]),
        select(&[ErrorShape::Usual, ErrorShape::NumericCode, ErrorShape::Wrapped, ErrorShape::Empty][..]),
        // Whoever cannot read the answer to a sign-in cannot end the session.
        select(&[Wrapping::None, Wrapping::ByteOrderMark, Wrapping::Gzip][..]),
    );
    let problems = (
        rarely(None, Just(Some("/pod/api/3.27/auth/signin?from=elsewhere".to_owned()))),
        rarely(0, 1_usize..6),
        Just(Some(0)),
        rarely(0, 1_usize..6),
        rarely(0, 1_usize..6),
        rarely(0, 1_usize..6),
        rarely(0, 1_usize..6),
        any::<bool>(),
        rarely(None, (0_usize..8).prop_map(Some)),
        rarely(0, 1_u64..5),
        rarely(false, Just(true)),
    );
    (shapes, writing, problems).prop_map(|(shapes, writing, problems)| {
        let (
            empty_list,
            lone_object,
            enabled_as_text,
            event_shape,
            page_size,
            last_page_missing,
            update_status,
            test_body,
            test_status_code,
            token_is_shared,
            is_deleted,
        ) = shapes;
        let (urls_rewritten, odd_webhooks, retry_hint, error_shape, wrapping) = writing;
        let (
            sign_in_moved_to,
            too_many_requests,
            retry_after_seconds,
            server_errors,
            failed_changes,
            lost_answers,
            broken_answers,
            html_errors,
            sessions_gone_after,
            delay_ms,
            refuses_site_events,
        ) = problems;
        // A wait of which Tableau does not say how long lasts 15 s and more, which is too long here: `reconciling.rs` has
        // it. So the answer that asks for it says how long.
        let (html_errors, error_shape) =
            if too_many_requests == 0 { (html_errors, error_shape) } else { (false, ErrorShape::Usual) };
        Oddities {
            empty_list,
            lone_object,
            enabled_as_text,
            event_shape,
            urls_rewritten,
            odd_webhooks,
            page_size,
            last_page_missing,
            sign_in_moved_to,
            update_status,
            too_many_requests,
            retry_after_seconds,
            retry_hint,
            server_errors,
            failed_changes,
            lost_answers,
            broken_answers,
            html_errors,
            error_shape,
            wrapping,
            sessions_gone_after,
            token_is_shared,
            is_deleted,
            delay_ms,
            refuses_site_events,
            test_body,
            test_status_code,
            // Of which each has a test of its own.
            echo: None,
            hostility: None,
            jobs: JobOddities::default(),
        }
    })
}

/// Returns rows of webhooks that somebody else made, and that cannot be read in full.
fn odd_webhooks() -> Vec<Value> {
    vec![
        json!({ "id": 4711, "isEnabled": "1", "name": "someone's" }),
        json!({ "id": "odd", "name": null, "event": null, "webhook-destination": null }),
        json!({ "name": "without an identifier", "isEnabled": [] }),
    ]
}

fn any_run() -> impl Strategy<Value = Run> {
    let action = prop_oneof![
        8 => Just(Action::Apply),
        5 => Just(Action::Rotate),
        1 => Just(Action::Plan),
        1 => Just(Action::Test),
        1 => Just(Action::Destroy),
    ];
    // A run first reads and stores parameters, and then makes few calls in most cases and many in some.
    let done = prop_oneof![1 => 0_usize..8, 3 => 4_usize..20, 2 => 10_usize..40];
    let crash = (done, 0_usize..5).prop_map(|(done, polls)| Crash { of: None, done, polls });
    (action, option::weighted(0.2, any_site()), rarely(false, Just(true)), option::weighted(0.5, crash)).prop_map(
        |(action, site, is_short, crash)| {
            // A rotation is for all sites.
            let site = site.filter(|_| action != Action::Rotate);
            Run { action, site, is_short, crash }
        },
    )
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sites, shares_token, steps } = self;
        let tokens = if *shares_token { "that share a token" } else { "with a token each" };
        writeln!(formatter, "{sites} sites {tokens}")?;
        steps
            .iter()
            .zip(1..)
            .try_for_each(|(step, number)| writeln!(formatter, "{number:3}. {}", step.describe(*sites)))
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
            Self::Fault(at, fault) => format!("Tableau's {}: {fault:?}", site(at)),
            Self::Run(run, None) => run.describe(sites),
            Self::Run(run, Some(other)) => format!("{}, and at once {}", run.describe(sites), other.describe(sites)),
        }
    }
}

impl Run {
    fn describe(&self, sites: usize) -> String {
        let Self { action, site, is_short, crash } = self;
        let site = site.map_or_else(String::new, |site| format!(" of {}", letter(site % sites)));
        let short = if *is_short { " in a short time" } else { "" };
        let crash = crash.map_or_else(String::new, |crash| format!(", {crash}"));
        format!("{action:?}{site}{short}{crash}")
    }
}
