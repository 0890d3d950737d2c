//! What can happen to declared sites, as values that chance makes and people read.

use std::fmt;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use reconciler::request::Action;
use serde_json::{Value, json};
use tableau_simulator::model::{EmptyList, EventShape, JobOddities, Oddities, TestBody};

/// The most sites a history has.
pub(super) const MOST_SITES: usize = 3;

/// The most steps.
const MOST_STEPS: usize = 12;

/// The events that entries ask for and webhooks are changed to. All are known to Tableau, so that a site can have them.
const EVENTS: [&str; 6] = [
    "DatasourceRefreshFailed",
    "SiteCreated",
    "UserDeleted",
    "ViewDeleted",
    "WorkbookCreated",
    "WorkbookRefreshFailed",
];

/// What people call webhooks. The first six are ours, by their exact shape.
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

/// Texts that are no entry.
const UNREADABLE: [&str; 4] = [
    "",
    "{\"token_secret\": \"half of a",
    "{\"server\": \"https://tableau.example\"}",
    "{\"server\": \"https://tableau.example\", \"site\": \"\", \"token_name\": \"n\", \"token_secret\": \"s\", \"event\": []}",
];

/// A history: sites that begin empty and declared, and what happens then.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// How many sites there are.
    pub(super) sites: usize,
    /// Whether they share one token. Otherwise each has its own, and they are visited side by side.
    pub(super) shares_token: bool,
    /// What happens, in order.
    pub(super) steps: Vec<Step>,
}

/// Something that happens. Sites are counted from 0; one that there is not stands for one that there is.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Somebody stores an entry, or deletes it.
    Declare(usize, Entry),
    /// Somebody, or Tableau, changes a webhook.
    Drift(usize, Drift),
    /// Something ceases to work as it should.
    Fault(usize, Fault),
    /// The reconciler runs, perhaps twice at once.
    Run(Run, Option<Run>),
}

/// What a site's entry is.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// It leaves the events to the stack.
    Usual,
    /// It asks for these events.
    Wanting(Vec<&'static str>),
    /// There is none.
    Missing,
    /// It is this text.
    Unreadable(&'static str),
}

/// What becomes of a webhook, ours or not. They are counted as the events are, from the oldest.
#[derive(Clone, Debug)]
pub(super) enum Drift {
    Disable(usize, Option<&'static str>),
    Delete(usize),
    Move(usize),
    ChangeEvent(usize, &'static str),
    Rename(usize, &'static str),
    Copy(usize, Original),
    Add(&'static str, &'static str),
    /// Tableau lists them the other way round.
    Turn,
}

/// What becomes of a webhook of which somebody makes a copy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Original {
    Kept,
    Disabled,
    Moved,
}

/// What ceases to work.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Tableau behaves in these ways, and no longer in others. A sign-in is moved to this machine's other name,
    /// whatever is named here.
    Odd(Box<Oddities>),
    /// The token's secret is another.
    TokenReplaced,
    /// The token's owner is no longer an administrator.
    OwnerDemoted,
    /// People cannot be told anything, of no site.
    PeopleUnreachable,
    /// Everything works again.
    Over,
}

/// A run of the reconciler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// What is asked for.
    pub(super) action: Action,
    /// The one site it is for.
    pub(super) site: Option<usize>,
    /// Whether its time is enough for some of the sites only.
    pub(super) is_short: bool,
    /// When it ends before its end.
    pub(super) crash: Option<Crash>,
}

/// The point at which a run is cut off. If it ends earlier, nothing becomes of it.
///
/// A run waits before and after each thing it does, so any two of them can be told apart by these two numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    /// How many things were done: calls to Tableau, and entries or keys read or stored.
    pub(super) done: usize,
    /// How often the run went on after that.
    pub(super) polls: usize,
}

/// Any history.
pub(super) fn any_history() -> impl Strategy<Value = History> {
    (2..=MOST_SITES, any::<bool>(), vec(any_step(), 1..=MOST_STEPS)).prop_map(|(sites, shares_token, steps)| History {
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
    0..MOST_SITES
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => Just(Entry::Usual),
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
        1 => Just(Drift::Turn),
    ]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => any_oddities().prop_map(|oddities| Fault::Odd(Box::new(oddities))),
        1 => Just(Fault::TokenReplaced),
        1 => Just(Fault::OwnerDemoted),
        1 => Just(Fault::PeopleUnreachable),
        2 => Just(Fault::Over),
    ]
}

/// The usual value most of the time.
fn rarely<T: Clone + fmt::Debug>(usual: T, odd: impl Strategy<Value = T>) -> impl Strategy<Value = T> {
    prop_oneof![6 => Just(usual), 1 => odd]
}

/// Every oddity, so that a new one does not compile until it is among them.
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
    let troubles = (
        rarely(None, Just(Some(String::new()))),
        rarely(0, 1_usize..6),
        option::of(Just(0)),
        rarely(0, 1_usize..6),
        rarely(0, 1_usize..6),
        rarely(0, 1_usize..6),
        rarely(0, 1_usize..6),
        any::<bool>(),
        rarely(None, (0_usize..8).prop_map(Some)),
        rarely(0, 1_u64..5),
        rarely(false, Just(true)),
    );
    (shapes, troubles).prop_map(|(shapes, troubles)| {
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
        ) = troubles;
        Oddities {
            empty_list,
            lone_object,
            enabled_as_text,
            event_shape,
            page_size,
            last_page_missing,
            sign_in_moved_to,
            update_status,
            too_many_requests,
            retry_after_seconds,
            server_errors,
            failed_changes,
            lost_answers,
            broken_answers,
            html_errors,
            sessions_gone_after,
            token_is_shared,
            is_deleted,
            delay_ms,
            refuses_site_events,
            test_body,
            test_status_code,
            jobs: JobOddities::default(),
        }
    })
}

fn any_run() -> impl Strategy<Value = Run> {
    let action = prop_oneof![
        8 => Just(Action::Apply),
        5 => Just(Action::Rotate),
        1 => Just(Action::Plan),
        1 => Just(Action::Test),
        1 => Just(Action::Destroy),
    ];
    // First comes what is read and stored, then a few calls in most runs and many in some.
    let done = prop_oneof![1 => 0_usize..8, 3 => 4_usize..20, 2 => 10_usize..40];
    let crash = (done, 0_usize..5).prop_map(|(done, polls)| Crash { done, polls });
    (action, option::weighted(0.2, any_site()), rarely(false, Just(true)), option::weighted(0.5, crash)).prop_map(
        |(action, site, is_short, crash)| {
            // A rotation is for all sites.
            let site = site.filter(|_| action != Action::Rotate);
            Run { action, site, is_short, crash }
        },
    )
}

/// Our letter for a site.
pub(super) fn letter(site: usize) -> char {
    ['a', 'b', 'c'].into_iter().cycle().nth(site).unwrap_or('a')
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sites, shares_token, steps } = self;
        let tokens = if *shares_token { "that share a token" } else { "with a token each" };
        writeln!(formatter, "{sites} sites {tokens}")?;
        steps.iter().zip(1..).try_for_each(|(step, number)| writeln!(formatter, "{number:3}. {}", step.told(*sites)))
    }
}

impl Step {
    /// The step in words, for that many sites.
    pub(super) fn told(&self, sites: usize) -> String {
        let site = |site: &usize| letter(site % sites);
        match self {
            Self::Declare(at, entry) => format!("entry of {}: {entry:?}", site(at)),
            Self::Drift(at, drift) => format!("webhooks of {}: {drift:?}", site(at)),
            Self::Fault(at, Fault::Odd(oddities)) => format!("Tableau's {}: {}", site(at), told(oddities)),
            Self::Fault(at, fault) => format!("Tableau's {}: {fault:?}", site(at)),
            Self::Run(run, None) => run.told(sites),
            Self::Run(run, Some(other)) => format!("{}, and at once {}", run.told(sites), other.told(sites)),
        }
    }
}

impl Run {
    fn told(&self, sites: usize) -> String {
        let Self { action, site, is_short, crash } = self;
        let site = site.map_or_else(String::new, |site| format!(" of {}", letter(site % sites)));
        let crash = crash.map_or_else(String::new, |Crash { done, polls }| {
            format!(", cut off {polls} polls after the {done} first things it does")
        });
        let short = if *is_short { " in a short time" } else { "" };
        format!("{action:?}{site}{short}{crash}")
    }
}

/// What is odd among oddities.
fn told(oddities: &Oddities) -> String {
    let (told, usual) = (json!(oddities), json!(Oddities::default()));
    let odd = told.as_object().into_iter().flatten().filter(|(member, value)| usual[member.as_str()] != **value);
    let odd: Vec<_> = odd.map(|(member, value): (&String, &Value)| format!("{member} {value}")).collect();
    if odd.is_empty() { "nothing odd".to_owned() } else { odd.join(", ") }
}
