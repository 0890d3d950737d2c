//! Health of refresh events: which of them reach the receiver.

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

/// Returns the events that jobs show.
pub fn refresh_events(events: &BTreeSet<Event>) -> BTreeSet<Event> {
    let is_refresh = |event: &&Event| event.action().is_some_and(|action| action.starts_with("refresh-"));
    let is_of_extract = |event: &&Event| matches!(event.resource_type(), Some("datasource" | "workbook"));
    events.iter().filter(is_refresh).filter(is_of_extract).cloned().collect()
}

/// Returns the events that reach the receiver, by a **complete** list of a site's webhooks. An enabled webhook is healthy if
/// the receiver accepts its address, by any of the keys; its name does not matter.
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
        // The answer may leave out the event.
        let is_for_it = webhook.event.as_ref().is_none_or(|observed| observed == event);
        (signed_for == site && is_for_it).then(|| event.clone())
    });
    accepted.collect()
}

/// Whether the event is a failed refresh.
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
    fn an_event_is_healthy_if_its_webhook_is_enabled_with_an_accepted_address() {
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
            webhook(RegistrationUrl::observed("https://foreign.example/".to_owned()), Some(event(name)), true),
        ] {
            assert_eq!(healthy(down), events(&[]));
        }
        let of_marketing = webhook(url(name, &keyring), Some(event(name)), true);
        assert_eq!(healthy_events(&site("sales"), &[of_marketing], &receiver, &keyring), events(&[]));
    }
}
