//! The plan for a site: a pure comparison of its desired and its observed webhooks.

use std::collections::BTreeSet;

use crate::sites::webhook::{DesiredWebhook, NamePrefix, ObservedWebhook};

/// Changes of one site's webhooks, in the order of execution: update, enable, create, delete. This order leaves no gap in
/// which an event is lost.
///
/// ```
/// # use shared::registration::{keyring::Keyring, signed_url::ReceiverUrl};
/// use shared::{
///     events::catalogue::Event,
///     sites::{
///         plan::{Change, Plan},
///         webhook::{DesiredWebhook, NamePrefix, ObservedWebhook},
///     },
/// };
///
/// # let (keyring, receiver) = (Keyring::of([7; 32]), ReceiverUrl::parse("https://receiver.example").ok_or("")?);
/// let prefix: NamePrefix = "tableau-fanout".parse()?;
/// let events = Event::parse_list("ViewDeleted,WorkbookRefreshFailed")?;
/// let desired = DesiredWebhook::all(&"marketing".parse()?, &events, &prefix, &receiver, &keyring);
///
/// // Tableau has one of the two, which it disabled, and a webhook of another program.
/// let disabled = ObservedWebhook {
///     id: "1".to_owned(),
///     name: "tableau-fanout-ViewDeleted".to_owned(),
///     event: Some(desired[0].event.clone()),
///     url: Some(desired[0].url.clone()),
///     is_enabled: false,
///     status_change_reason: None,
///     updated_at: None,
/// };
/// let foreign = ObservedWebhook {
///     id: "2".to_owned(),
///     name: "Slack".to_owned(),
///     url: None,
///     ..disabled.clone()
/// };
///
/// let plan = Plan::new(&prefix, desired, vec![foreign, disabled]);
/// assert!(matches!(&plan.changes[..], [Change::Enable { .. }, Change::Create { .. }]));
/// assert_eq!(plan.foreign, ["Slack"]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Names of owned webhooks that stay as they are.
    pub unchanged: Vec<String>,
    /// Names of foreign webhooks, which no change touches.
    pub foreign: Vec<String>,
}

/// One change. Desired and observed webhooks have different types, so that code cannot confuse them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Corrects address and event of an owned webhook, and enables it if it is disabled.
    Update {
        /// The webhook on Tableau.
        observed: ObservedWebhook,
        /// The webhook as declared.
        desired: DesiredWebhook,
    },
    /// Enables an owned webhook that Tableau disabled and that is correct otherwise.
    Enable {
        /// The webhook on Tableau.
        observed: ObservedWebhook,
        /// The webhook as declared.
        desired: DesiredWebhook,
    },
    /// Creates a missing webhook.
    Create {
        /// The webhook as declared.
        desired: DesiredWebhook,
    },
    /// Deletes an owned webhook that is not desired, or a surplus copy.
    Delete {
        /// The webhook on Tableau.
        observed: ObservedWebhook,
        /// Whether it is a copy of a webhook that stays.
        is_surplus: bool,
    },
}

impl Plan {
    /// Compares desired webhooks with a **complete** list of a site's webhooks.
    ///
    /// The result does not depend on the order of either list.
    pub fn new(prefix: &NamePrefix, mut desired: Vec<DesiredWebhook>, observed: Vec<ObservedWebhook>) -> Self {
        // Sorted, so that a report does not depend on Tableau's order.
        desired.sort_by(|a, b| a.event.cmp(&b.event));
        let (mut owned, foreign): (Vec<_>, Vec<_>) =
            observed.into_iter().partition(|webhook| prefix.event_of(&webhook.name).is_some());
        owned.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));

        let mut plan = Self { foreign: foreign.into_iter().map(|webhook| webhook.name).collect(), ..Self::default() };
        plan.foreign.sort();
        let wanted: BTreeSet<_> = desired.iter().map(|desired| desired.name.clone()).collect();
        let (mut updates, mut enables, mut creates) = (Vec::new(), Vec::new(), Vec::new());
        for desired in desired {
            let copies = (0..owned.len()).filter(|index| owned[*index].name == desired.name);
            // Keep the copy that needs the least change; of equal ones that with the first identifier.
            let Some(kept) = copies.min_by_key(|index| needs(&owned[*index], &desired)) else {
                creates.push(Change::Create { desired });
                continue;
            };
            let observed = owned.remove(kept);
            match needs(&observed, &desired) {
                Needs::Nothing => plan.unchanged.push(observed.name),
                Needs::Enabling => enables.push(Change::Enable { observed, desired }),
                Needs::Updating => updates.push(Change::Update { observed, desired }),
            }
        }
        let deletes = owned.into_iter().map(|observed| {
            let is_surplus = wanted.contains(&observed.name);
            Change::Delete { observed, is_surplus }
        });
        plan.changes = updates.into_iter().chain(enables).chain(creates).chain(deletes).collect();
        plan
    }
}

/// The change that a webhook needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Nothing,
    Enabling,
    Updating,
}

fn needs(observed: &ObservedWebhook, desired: &DesiredWebhook) -> Needs {
    // A missing event in Tableau's answer is no difference; another event is.
    let other_event = observed.event.as_ref().is_some_and(|event| *event != desired.event);
    if other_event || observed.url.as_ref() != Some(&desired.url) {
        Needs::Updating
    } else if !observed.is_enabled {
        Needs::Enabling
    } else {
        Needs::Nothing
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::{events::catalogue::Event, registration::signed_url::RegistrationUrl};

    const EVENTS: [&str; 4] = ["DatasourceRefreshFailed", "ViewDeleted", "WorkbookCreated", "FlowRunFailed"];

    fn prefix() -> NamePrefix {
        "fan".parse().expect("a prefix")
    }

    fn event(name: &str) -> Event {
        name.parse().expect("an event")
    }

    fn url(text: &str) -> RegistrationUrl {
        RegistrationUrl::observed(format!("https://receiver.example/{text}"))
    }

    fn desired(name: &str) -> DesiredWebhook {
        DesiredWebhook { name: format!("fan-{name}"), event: event(name), url: url(name) }
    }

    fn observed(id: usize, name: &str) -> ObservedWebhook {
        ObservedWebhook {
            id: format!("{id:03}"),
            name: format!("fan-{name}"),
            event: Some(event(name)),
            url: Some(url(name)),
            is_enabled: true,
            status_change_reason: None,
            updated_at: None,
        }
    }

    /// Returns a site's webhooks after a plan was executed.
    fn apply(plan: &Plan, mut site: Vec<ObservedWebhook>) -> Vec<ObservedWebhook> {
        for (number, change) in plan.changes.iter().enumerate() {
            match change {
                Change::Update { observed: before, desired } | Change::Enable { observed: before, desired } => {
                    for webhook in site.iter_mut().filter(|webhook| webhook.id == before.id) {
                        webhook.event = Some(desired.event.clone());
                        webhook.url = Some(desired.url.clone());
                        webhook.is_enabled = true;
                    }
                }
                Change::Create { desired } => site.push(observed(900 + number, desired.event.as_str())),
                Change::Delete { observed, .. } => site.retain(|webhook| webhook.id != observed.id),
            }
        }
        site
    }

    fn kinds(plan: &Plan) -> Vec<(&'static str, String)> {
        let kinds = plan.changes.iter().map(|change| match change {
            Change::Update { observed, .. } => ("update", observed.id.clone()),
            Change::Enable { observed, .. } => ("enable", observed.id.clone()),
            Change::Create { desired } => ("create", desired.name.clone()),
            Change::Delete { observed, .. } => ("delete", observed.id.clone()),
        });
        kinds.collect()
    }

    #[test]
    fn a_site_that_is_as_declared_needs_nothing() {
        let plan = Plan::new(&prefix(), vec![desired("ViewDeleted")], vec![observed(1, "ViewDeleted")]);
        assert_eq!(plan, Plan { unchanged: vec!["fan-ViewDeleted".to_owned()], ..Plan::default() });
    }

    #[test]
    fn updates_come_first_then_enabling_creating_and_deleting() {
        let site = vec![
            observed(1, "FlowRunFailed"),
            ObservedWebhook { is_enabled: false, ..observed(2, "ViewDeleted") },
            ObservedWebhook { url: Some(url("old")), is_enabled: false, ..observed(3, "WorkbookCreated") },
            ObservedWebhook { name: "someone else's".to_owned(), is_enabled: false, ..observed(4, "ViewDeleted") },
        ];
        let wanted = ["DatasourceRefreshFailed", "ViewDeleted", "WorkbookCreated"].map(desired);
        let plan = Plan::new(&prefix(), wanted.to_vec(), site);
        let expected =
            [("update", "003"), ("enable", "002"), ("create", "fan-DatasourceRefreshFailed"), ("delete", "001")];
        assert_eq!(kinds(&plan), expected.map(|(kind, what)| (kind, what.to_owned())));
        assert_eq!(plan.foreign, ["someone else's"]);
    }

    #[test]
    fn of_several_copies_the_correct_one_is_kept() {
        let site = vec![
            ObservedWebhook { url: None, ..observed(1, "ViewDeleted") },
            ObservedWebhook { is_enabled: false, ..observed(2, "ViewDeleted") },
            observed(3, "ViewDeleted"),
            observed(4, "ViewDeleted"),
        ];
        let plan = Plan::new(&prefix(), vec![desired("ViewDeleted")], site);
        assert_eq!(kinds(&plan), ["001", "002", "004"].map(|id| ("delete", id.to_owned())));
    }

    #[test]
    fn a_missing_event_in_the_answer_is_no_difference() {
        let without_event = ObservedWebhook { event: None, ..observed(1, "ViewDeleted") };
        assert_eq!(Plan::new(&prefix(), vec![desired("ViewDeleted")], vec![without_event]).changes, []);
    }

    #[test]
    fn another_event_under_the_same_name_is_updated() {
        let other = ObservedWebhook { event: Some(event("WorkbookCreated")), ..observed(1, "ViewDeleted") };
        let plan = Plan::new(&prefix(), vec![desired("ViewDeleted")], vec![other]);
        assert_eq!(kinds(&plan), [("update", "001".to_owned())]);
    }

    prop_compose! {
        fn any_webhook()(
            name in prop_oneof![
                4 => select(&EVENTS[..]).prop_map(|event| format!("fan-{event}")),
                1 => select(&["fan-", "fan-out-ViewDeleted", "other", "FAN-ViewDeleted", "fan-View Deleted"][..])
                    .prop_map(str::to_owned),
            ],
            event in proptest::option::of(select(&EVENTS[..])),
            address in proptest::option::of(select(&["ViewDeleted", "WorkbookCreated", "FlowRunFailed", "old"][..])),
            is_enabled: bool,
        ) -> ObservedWebhook {
            ObservedWebhook {
                id: String::new(),
                name,
                event: event.map(self::event),
                url: address.map(url),
                is_enabled,
                status_change_reason: None,
                updated_at: None,
            }
        }
    }

    prop_compose! {
        fn any_site()(webhooks in vec(any_webhook(), 0..12)) -> Vec<ObservedWebhook> {
            let numbered = webhooks.into_iter().enumerate();
            numbered.map(|(id, webhook)| ObservedWebhook { id: format!("{id:03}"), ..webhook }).collect()
        }
    }

    fn any_desired() -> impl Strategy<Value = Vec<DesiredWebhook>> {
        proptest::sample::subsequence(EVENTS.to_vec(), 0..=EVENTS.len())
            .prop_map(|events| events.into_iter().map(desired).collect())
    }

    proptest! {
        #[test]
        fn a_plan_after_its_execution_is_empty(wanted in any_desired(), site in any_site()) {
            let site = apply(&Plan::new(&prefix(), wanted.clone(), site.clone()), site);
            prop_assert_eq!(Plan::new(&prefix(), wanted, site).changes, []);
        }

        #[test]
        fn the_order_of_the_lists_does_not_matter(
            (wanted, shuffled_wanted) in any_desired().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            (site, shuffled_site) in any_site().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            prop_assert_eq!(
                Plan::new(&prefix(), wanted, site),
                Plan::new(&prefix(), shuffled_wanted, shuffled_site)
            );
        }

        #[test]
        fn foreign_webhooks_are_never_touched(wanted in any_desired(), site in any_site()) {
            let foreign = |site: &[ObservedWebhook]| -> Vec<_> {
                site.iter().filter(|webhook| prefix().event_of(&webhook.name).is_none()).cloned().collect()
            };
            let before = foreign(&site);
            let plan = Plan::new(&prefix(), wanted, site.clone());
            prop_assert_eq!(plan.foreign.len(), before.len());
            prop_assert_eq!(foreign(&apply(&plan, site)), before);
        }
    }
}
