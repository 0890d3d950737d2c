//! Histories of refreshes, as values that are derived at random and printed for people.

use std::fmt;

use proptest::{collection::vec, option, prelude::*, sample::select};
use tableau_simulator::model::{JobOddities, NotesShape, OddDetail, OddRow, Oddities, RefreshOutcome};

use super::super::{crash::Crash, environment::describe};

/// The most steps of a history.
const MAX_STEPS: usize = 16;

/// The events that the sites want.
pub(super) const WANTED: [&str; 5] = [
    "DatasourceRefreshFailed",
    "DatasourceRefreshSucceeded",
    "WorkbookRefreshFailed",
    "WorkbookRefreshStarted",
    "ViewDeleted",
];

/// The kinds of content that is refreshed.
pub(super) const KINDS: [&str; 2] = ["datasource", "workbook"];

/// The names of content that is refreshed.
pub(super) const NAMES: [&str; 3] = ["Sales 📈", "Staff", "Stock"];

/// A history: declared sites, and the steps that follow.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) sites: usize,
    pub(super) steps: Vec<Step>,
}

/// A step. Sites are numbered from 0, modulo the number of sites.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A refresh of a kind of content begins.
    Begin(usize, usize),
    /// The refresh that began first ends.
    End(usize, RefreshOutcome),
    /// Some refreshes begin and end within a second.
    Refresh(usize, usize, RefreshOutcome, usize),
    /// The webhook for an event goes down.
    Outage(usize, usize, Outage),
    /// The webhook for failures of a kind goes down, and then some refreshes fail.
    Miss(usize, usize, Outage, usize),
    /// Some minutes pass.
    Pass(i64),
    /// The reconciler runs, some minutes later, and perhaps twice at the same time.
    Run(i64, Option<Crash>, Option<Option<Crash>>),
    /// Tableau behaves oddly.
    Odd(usize, Box<Oddities>),
    /// SNS accepts some more events, and then no others.
    SnsAccepts(usize),
    /// SNS refuses events with this text for good.
    SnsRefuses(&'static str),
    /// The stored state of refreshes is lost, or no longer readable.
    Forget(&'static str),
    /// Everything works again.
    Over,
}

/// The reason why a webhook delivers nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outage {
    Disabled,
    Deleted,
    Moved,
}

/// Returns the strategy for any history.
pub(super) fn any_history() -> impl Strategy<Value = History> {
    (1_usize..=2, vec(any_step(), 4..=MAX_STEPS)).prop_map(|(sites, steps)| History { sites, steps })
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..2;
    let crash = || {
        // A run first reads and stores parameters, then works on the sites, and then publishes.
        let done = prop_oneof![1 => 0_usize..12, 4 => 12_usize..45];
        let any = (done, 0_usize..5).prop_map(|(done, polls)| Crash { of: None, done, polls });
        let of = select(
            &["publish event", "store site", "store run", "hold token", "publish alert", "PUT ", "POST sites"][..],
        );
        let late = (of, 1_usize..4, 0_usize..3).prop_map(|(of, done, polls)| Crash { of: Some(of), done, polls });
        option::weighted(0.5, prop_oneof![any, late])
    };
    let outcome = select(
        &[RefreshOutcome::Failed, RefreshOutcome::Failed, RefreshOutcome::Succeeded, RefreshOutcome::Cancelled][..],
    );
    let outage = select(&[Outage::Disabled, Outage::Disabled, Outage::Deleted, Outage::Moved][..]);
    let odd =
        (select(&["errors", "requests", "changes", "answers", "jobs"][..]), 1_usize..4).prop_map(|(what, calls)| {
            let default = Oddities::default();
            match what {
                "errors" => Oddities { server_errors: calls, ..default },
                "requests" => Oddities { too_many_requests: calls, ..default },
                "jobs" => {
                    Oddities { jobs: JobOddities { too_many_requests: calls, ..JobOddities::default() }, ..default }
                }
                "changes" => Oddities { failed_changes: calls, ..default },
                _ => Oddities { lost_answers: calls, ..default },
            }
        });
    prop_oneof![
        2 => (at(), at()).prop_map(|(site, kind)| Step::Begin(site, kind)),
        3 => (at(), outcome.clone()).prop_map(|(site, outcome)| Step::End(site, outcome)),
        6 => (at(), at(), outcome, 1_usize..4)
            .prop_map(|(site, kind, outcome, count)| Step::Refresh(site, kind, outcome, count)),
        4 => (at(), at(), outage.clone(), 1_usize..4)
            .prop_map(|(site, kind, outage, count)| Step::Miss(site, kind, outage, count)),
        4 => (at(), 0_usize..5, outage).prop_map(|(site, event, outage)| Step::Outage(site, event, outage)),
        2 => (1_i64..25).prop_map(Step::Pass),
        12 => (select(&[0_i64, 7, 15][..]), crash(), option::weighted(0.2, crash()))
            .prop_map(|(minutes, crash, other)| Step::Run(minutes, crash, other)),
        1 => (at(), odd).prop_map(|(site, odd)| Step::Odd(site, Box::new(odd))),
        2 => (at(), any_odd_jobs()).prop_map(|(site, jobs)| {
            Step::Odd(site, Box::new(Oddities { jobs, ..Oddities::default() }))
        }),
        1 => (0_usize..4).prop_map(Step::SnsAccepts),
        1 => select(&NAMES[..]).prop_map(Step::SnsRefuses),
        1 => select(&["", "half a"][..]).prop_map(Step::Forget),
        1 => Just(Step::Over),
    ]
}

/// Returns the strategy for jobs of which all, or those of one name, are odd.
fn any_odd_jobs() -> impl Strategy<Value = JobOddities> {
    let row = select(&[OddRow::WithoutId, OddRow::Null, OddRow::Number, OddRow::Text][..]);
    let detail = select(
        &[
            OddDetail::NotQueryable,
            OddDetail::Forbidden,
            OddDetail::NotFound,
            OddDetail::ServerError,
            OddDetail::Page,
            OddDetail::NotFoundPage,
            OddDetail::Null,
            OddDetail::Broken,
        ][..],
    );
    let notes = select(&[NotesShape::List, NotesShape::Beside, NotesShape::StatusNotes, NotesShape::StatusValue][..]);
    let usual = JobOddities::default;
    let odd = prop_oneof![
        2 => row.prop_map(move |row| JobOddities { row: Some(row), ..usual() }),
        6 => detail.prop_map(move |detail| JobOddities { detail: Some(detail), ..usual() }),
        1 => notes.prop_map(move |notes| JobOddities { notes, ..usual() }),
        1 => any::<bool>().prop_map(move |pages_go_on| JobOddities { not_listed: 1, pages_go_on, ..usual() }),
        1 => Just(JobOddities { without_resource: true, ..usual() }),
        1 => Just(JobOddities { finish_code: Some("4".to_owned()), ..usual() }),
    ];
    (odd, option::weighted(0.7, select(&NAMES[..])))
        .prop_map(|(odd, only)| JobOddities { only: only.map(str::to_owned), ..odd })
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} sites", self.sites)?;
        self.steps.iter().zip(1..).try_for_each(|(step, number)| writeln!(formatter, "{number:3}. {step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crash = |crash: &Option<Crash>| crash.map_or_else(String::new, |crash| format!(", {crash}"));
        match self {
            Self::Run(minutes, one, None) => write!(formatter, "Run after {minutes} minutes{}", crash(one)),
            Self::Run(minutes, one, Some(other)) => {
                write!(formatter, "Run after {minutes} minutes{}, and at once another{}", crash(one), crash(other))
            }
            Self::Odd(site, oddities) => write!(formatter, "Odd({site}, {})", describe(oddities)),
            step => write!(formatter, "{step:?}"),
        }
    }
}
