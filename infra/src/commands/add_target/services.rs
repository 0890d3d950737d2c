//! The services behind the presets: the addresses that are known.

use shared::targets::entry::{Preset, TargetEntry};
use url::Url;

/// PagerDuty's address, the same for all accounts of a service region (Events API, version 2).
const PAGERDUTY: [(bool, &str); 2] =
    [(false, "https://events.pagerduty.com/v2/enqueue"), (true, "https://events.eu.pagerduty.com/v2/enqueue")];

/// The beginning of an address of IFTTT.
const IFTTT: &str = "https://maker.ifttt.com/trigger/";

/// End of the hosts of workflows that Microsoft has switched off.
const SWITCHED_OFF: &str = ".logic.azure.com";

/// Returns PagerDuty's address.
pub(super) fn pagerduty(is_eu: bool) -> &'static str {
    PAGERDUTY.iter().find(|(eu, _)| *eu == is_eu).map_or("", |(_, address)| address)
}

/// Returns IFTTT's address for an event and a key.
pub(super) fn ifttt(event: &str, key: &str) -> Option<Url> {
    let mut url: Url = IFTTT.parse().ok()?;
    // The path ends with a slash, behind which nothing is yet.
    url.path_segments_mut().ok()?.pop_if_empty().extend([event, "with", "key", key]);
    Some(url)
}

/// Returns the question for the address of a preset.
pub(super) fn question(preset: Preset) -> &'static str {
    match preset {
        Preset::Slack => "Address of the Slack webhook, https://hooks.slack.com/services/…",
        Preset::Teams => "Address of the Teams workflow, https://….api.powerplatform.com/…",
        Preset::Zapier => "Address of the Zapier catch hook, https://hooks.zapier.com/hooks/catch/…",
        _ => "Address of the target, https://…",
    }
}

/// Returns the beginning that addresses of a preset have, as far as it is known, and whether an address has it.
fn expected(preset: Preset, url: &Url) -> Option<(&'static str, bool)> {
    let (host, path) = (url.host_str().unwrap_or_default(), url.path());
    Some(match preset {
        Preset::Slack => {
            let is_slack = ["hooks.slack.com", "hooks.slack-gov.com"].contains(&host);
            ("https://hooks.slack.com/", is_slack)
        }
        Preset::Teams => ("https://….api.powerplatform.com/", host.ends_with(".api.powerplatform.com")),
        Preset::PagerDuty => (pagerduty(false), PAGERDUTY.iter().any(|(_, known)| url.as_str() == *known)),
        Preset::Zapier => {
            ("https://hooks.zapier.com/hooks/catch/", host == "hooks.zapier.com" && path.starts_with("/hooks/"))
        }
        Preset::Ifttt => (IFTTT, host == "maker.ifttt.com" && path.starts_with("/trigger/")),
        _ => return None,
    })
}

/// Returns what deserves a look in an entry, without its address.
pub(super) fn warnings(entry: &TargetEntry) -> Vec<String> {
    let url = entry.address.url();
    let host = url.host_str().unwrap_or_default();
    if entry.preset == Preset::Teams && host.ends_with(SWITCHED_OFF) {
        return vec![
            "the address is one of those that Microsoft has switched off. Fix: create a workflow in Teams, and take its address"
                .to_owned(),
        ];
    }
    let unexpected = expected(entry.preset, url).filter(|(_, is_expected)| !is_expected);
    let unexpected = unexpected.map(|(begin, _)| {
        format!(
            "the address does not begin with {begin}, as those of the preset {} do. A proxy may be right",
            entry.preset
        )
    });
    unexpected.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn warned(preset: &str, address: &str) -> anyhow::Result<Vec<String>> {
        let mut entry = json!({ "preset": preset, "address": address });
        if preset == "pagerduty" {
            entry["credentials"] = json!({ "type": "body", "member": "routing_key", "value": "R0" });
        }
        Ok(warnings(&TargetEntry::parse(&"a".parse()?, &entry.to_string())?))
    }

    #[test]
    fn an_address_of_another_service_is_named_without_showing_it() -> anyhow::Result<()> {
        for (preset, address) in [
            ("slack", "https://hooks.slack.com/services/T/B/x"),
            ("teams", "https://a.eu.environment.api.powerplatform.com/workflows/1/invoke?sig=x"),
            ("pagerduty", "https://events.pagerduty.com/v2/enqueue"),
            ("pagerduty", "https://events.eu.pagerduty.com/v2/enqueue"),
            ("zapier", "https://hooks.zapier.com/hooks/catch/1/2/"),
            ("ifttt", "https://maker.ifttt.com/trigger/failed/with/key/x"),
            ("plain", "https://target.example/s3cret"),
        ] {
            assert_eq!(warned(preset, address)?, [""; 0], "{preset}");
        }
        for (preset, address, expected) in [
            ("slack", "https://hooks.slack.com.s3cret.example/", "does not begin with https://hooks.slack.com/"),
            ("pagerduty", "https://events.pagerduty.com/s3cret", "does not begin with https://events.pagerduty.com/"),
            ("teams", "https://s3cret.example/", "does not begin with https://….api.powerplatform.com/"),
            ("teams", "https://prod-1.s3cret.logic.azure.com/", "switched off"),
            ("ifttt", "https://s3cret.example/", "https://maker.ifttt.com/"),
        ] {
            let warned = warned(preset, address)?.concat();
            assert!(warned.contains(expected) && !warned.contains("s3cret"), "{warned}");
        }
        Ok(())
    }

    #[test]
    fn the_address_of_ifttt_is_built_from_an_event_and_a_key() {
        let built = |event, key| ifttt(event, key).map(String::from);
        assert_eq!(built("failed", "k-1").as_deref(), Some("https://maker.ifttt.com/trigger/failed/with/key/k-1"));
        assert_eq!(built("a/b", "?k").as_deref(), Some("https://maker.ifttt.com/trigger/a%2Fb/with/key/%3Fk"));
    }
}
