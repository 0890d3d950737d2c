//! Which refresh events reach the receiver.

use std::collections::BTreeSet;

use crate::{
    events::catalogue::Event,
    registration::{
        claim::{Claim, Registration},
        keyring::Keyring,
        signed_url::ReceiverUrl,
        site_name::SiteName,
    },
    sites::webhook::ObservedWebhook,
};

/// Returns those of some events that jobs tell of.
pub fn refresh_events(events: &BTreeSet<Event>) -> BTreeSet<Event> {
    let is_refresh = |event: &&Event| event.action().is_some_and(|action| action.starts_with("refresh-"));
    let is_of_extract = |event: &&Event| matches!(event.resource_type(), Some("datasource" | "workbook"));
    events.iter().filter(is_refresh).filter(is_of_extract).cloned().collect()
}

/// Returns the events that reach the receiver, by a **complete** list of a site's webhooks: each by one that is enabled and
/// has an address that the receiver accepts, whatever key signed it and whatever the webhook is called.
pub fn healthy_events(
    site: &SiteName,
    observed: &[ObservedWebhook],
    receiver: &ReceiverUrl,
    keyring: &Keyring,
) -> BTreeSet<Event> {
    let enabled = observed.iter().filter(|webhook| webhook.is_enabled);
    let accepted = enabled.filter_map(|webhook| {
        let verified = Claim::parse(receiver.path_of(webhook.url.as_ref()?)?)?.verify(keyring)?;
        let Registration { site: signed_for, event } = verified.registration();
        // An event that the answer did not name is no reason to doubt it.
        let is_for_it = webhook.event.as_ref().is_none_or(|observed| observed == event);
        (signed_for == site && is_for_it).then(|| event.clone())
    });
    accepted.collect()
}

/// Whether it is the event of a refresh that failed, which is explained.
pub fn is_failure(event: &Event) -> bool {
    event.action() == Some("refresh-failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::signed_url::RegistrationUrl;

    fn events(names: &[&str]) -> BTreeSet<Event> {
        names.iter().map(|name| event(name)).collect()
    }

    fn event(name: &str) -> Event {
        name.parse().expect("an event")
    }

    #[test]
    fn an_event_reaches_the_receiver_by_a_webhook_that_is_enabled_and_has_an_accepted_address() {
        let receiver = ReceiverUrl::parse("https://receiver.example/").expect("an address");
        let (old, other) = (Keyring::of([1; 32]), Keyring::of([9; 32]));
        let keyring = Keyring::of([1; 32]).with_newest([2; 32]);
        let site = |name: &str| name.parse::<SiteName>().expect("a site");
        let url = |name: &str, keyring: &Keyring| {
            Registration { site: site("marketing"), event: event(name) }.signed_url(&receiver, keyring)
        };
        let webhook = |url: RegistrationUrl, event: Option<Event>, is_enabled| ObservedWebhook {
            id: "1".to_owned(),
            name: "whatever".to_owned(),
            event,
            url: Some(url),
            is_enabled,
            status_change_reason: None,
            updated_at: None,
        };
        let name = "WorkbookRefreshFailed";
        let healthy = |webhook| healthy_events(&site("marketing"), &[webhook], &receiver, &keyring);
        for accepted in [
            webhook(url(name, &keyring), Some(event(name)), true),
            webhook(url(name, &old), Some(event(name)), true),
            webhook(url(name, &keyring), None, true),
        ] {
            assert_eq!(healthy(accepted), events(&[name]));
        }
        for down in [
            webhook(url(name, &keyring), Some(event(name)), false),
            webhook(url(name, &other), Some(event(name)), true),
            webhook(url(name, &keyring), Some(event("ViewDeleted")), true),
            webhook(RegistrationUrl::observed("https://elsewhere.example/".to_owned()), Some(event(name)), true),
        ] {
            assert_eq!(healthy(down), events(&[]));
        }
        let elsewhere = webhook(url(name, &keyring), Some(event(name)), true);
        assert_eq!(healthy_events(&site("sales"), &[elsewhere], &receiver, &keyring), events(&[]));
    }
}
