//! Alerts about events.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    alerts::{
        data::{AlertKind, Severity},
        message::{AlertContent, AlertMessage, Related, thread},
        phrasing::{DisplayName, on_date},
        selection::DeliveryAlerts,
        text::{Text, text},
    },
    events::{catalogue::Event, delivery::Delivery, id::EventId, payload::Payload},
    registration::claim::Registration,
};

impl AlertMessage {
    /// Returns the alert about a delivery, if its event is a selected one.
    pub fn of_delivery(delivery: &Delivery<'_>, id: EventId, alerts: &DeliveryAlerts) -> Option<Self> {
        let registration = delivery.registration();
        let payload = delivery.event_payload().filter(|_| alerts.events.contains(&registration.event))?;
        Some(Self::about(registration, payload, id, alerts.reason_follows))
    }

    /// Returns the alert about an event.
    pub(crate) fn about(registration: &Registration, payload: &Payload<'_>, id: EventId, reason_follows: bool) -> Self {
        let Registration { site, event } = registration;
        let (site_name, event_name) = (site.to_string(), event.to_string());
        let Phrasing { headline, before, after, effect, next } = Phrasing::of(event, reason_follows);
        let name = DisplayName::of(
            event.resource_type().unwrap_or("resource"),
            payload.resource_name.as_deref(),
            payload.resource_luid.as_deref(),
        );
        let at = payload.created_at.as_deref().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        let when = at.map(on_date).unwrap_or_default();
        let title = text![headline, ": ", name.bare()];
        let short = text!["Tableau ", site_name.clone(), ": ", title.clone()];
        let sentence =
            text![before, name.in_sentence(), after, " on the Tableau site ", site_name.clone(), when.clone(), "."];
        let details = text!["\n\nDetails: event ", event_name.clone(), ", id ", id.to_string(), "."];
        let description = text![sentence.clone(), effect];
        let is_failure = event.action() == Some("refresh-failed");
        let (kind, severity) =
            if is_failure { (AlertKind::RefreshFailed, Severity::Error) } else { (AlertKind::Event, Severity::Info) };
        let content = AlertContent {
            kind,
            severity,
            resolved: false,
            sites: vec![site_name.clone()],
            subject: short.clone(),
            email: text![description.clone(), "\n\n", next, details],
            sms: text![short, when],
            id: id.to_string(),
            title,
            description,
            next: vec![next.into()],
            pages: Vec::new(),
            keywords: vec![site_name, event_name.clone()],
            thread: thread(site, payload.resource_luid.as_deref().unwrap_or(event.as_str())),
            summary: sentence,
            event_type: event_name,
            related: payload.resource_luid.clone().map(|id| Related {
                kind: event.resource_type().unwrap_or("resource"),
                id,
                name: payload.resource_name.clone(),
                project: None,
            }),
        };
        content.into()
    }
}

/// Wording of the alerts about one type of event.
struct Phrasing {
    /// A few words.
    headline: String,
    /// The sentence up to the resource's name.
    before: String,
    /// The sentence after the resource's name.
    after: String,
    /// The effect for readers, as a further sentence.
    effect: Text,
    /// The next step.
    next: &'static str,
}

impl Phrasing {
    fn of(event: &Event, reason_follows: bool) -> Self {
        let kind = event.resource_type().unwrap_or("resource");
        let happened =
            |headline: &str, verb: &str| (format!("{kind} {headline}"), format!("The {kind} "), format!(" {verb}"));
        let refresh = |outcome: &str| {
            (format!("{kind} refresh {outcome}"), format!("The extract refresh of the {kind} "), format!(" {outcome}"))
        };
        let (headline, before, after) = match event.action() {
            Some("refresh-failed") => refresh("failed"),
            Some("refresh-started") => refresh("started"),
            Some("refresh-succeeded") => refresh("succeeded"),
            Some("promoted") => happened("promoted", "was made an administrator"),
            Some("demoted") => happened("demoted", "is no longer an administrator"),
            Some(action) => happened(action, &format!("was {action}")),
            None => (event.to_string(), format!("Tableau reported the event {event} for "), String::new()),
        };
        // The payload names the labelled resource, not the label.
        let before = if kind == "label" { "A label of ".to_owned() } else { before };
        let (effect, next) = match event.action() {
            Some("refresh-failed") => (
                text![" The ", kind, " keeps the data of its last successful refresh."],
                if reason_follows {
                    "Tableau's reason follows within minutes, in another alert. To look at once, open the site in Tableau and \
                     choose Jobs."
                } else {
                    "To see the reason, open the site in Tableau and choose Jobs."
                },
            ),
            Some("promoted" | "demoted") => {
                (Text::default(), "To see who administers the site, open it in Tableau and choose Users.")
            }
            _ => (Text::default(), "No action is needed unless this is unexpected."),
        };
        Self { headline, before, after, effect, next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        alerts::{hostile, selection::AlertEvents},
        events::delivery::Delivery,
    };

    fn alert(event: &str, payload: &Value) -> AlertMessage {
        let registration =
            Registration { site: "marketing".parse().expect("a site"), event: event.parse().expect("an event") };
        let verified = registration.clone().verified_in_tests();
        let body = payload.to_string();
        let id = Delivery::read(&verified, body.as_bytes()).id("request");
        AlertMessage::about(&registration, &Payload::parse(body.as_bytes()).expect("an object"), id, false)
    }

    fn texts(alert: &AlertMessage) -> Value {
        serde_json::from_str(&alert.body).expect("JSON")
    }

    fn card(alert: &AlertMessage) -> Value {
        serde_json::from_str(texts(alert)["https"].as_str().expect("a text")).expect("JSON")
    }

    fn failed(name: &str) -> Value {
        json!({ "resource_name": name, "resource_luid": "99", "created_at": "2026-05-21T10:00:00.5+02:00" })
    }

    #[test]
    fn a_failed_refresh_says_what_happened_its_effect_and_the_next_step() {
        let alert = alert("DatasourceRefreshFailed", &failed("Umsätze \"Nord\" 📈"));
        let texts = texts(&alert);
        let shown = format!(
            "{}\n---\n{}\n---\n{}\n---\n{:#}",
            alert.subject,
            texts["email"].as_str().expect("a text"),
            texts["sms"].as_str().expect("a text"),
            card(&alert)
        );
        insta::assert_snapshot!(shown);
        assert_eq!(texts["default"], texts["email"]);
    }

    #[test]
    fn a_failure_whose_reason_follows_says_so_and_another_event_does_not() {
        let next = |event: &str| Phrasing::of(&event.parse().expect("an event"), true).next;
        assert!(next("WorkbookRefreshFailed").starts_with("Tableau's reason follows within minutes"));
        assert_eq!(next("WorkbookDeleted"), "No action is needed unless this is unexpected.");
    }

    #[test]
    fn every_event_has_its_own_sentence() {
        let sentences = Event::catalogue().map(|event| {
            let alert = alert(event.as_str(), &failed("Sales"));
            let sms = texts(&alert)["sms"].as_str().expect("a text").to_owned();
            format!("{}\n  {sms}", card(&alert)["metadata"]["summary"].as_str().expect("a text"))
        });
        insta::assert_snapshot!(sentences.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_missing_name_or_time_is_left_out() {
        let nameless = alert("WorkbookRefreshFailed", &json!({ "resource_luid": "99", "created_at": "yesterday" }));
        assert_eq!(
            card(&nameless)["metadata"]["summary"],
            "The extract refresh of the workbook with the id 99 failed on the Tableau site marketing."
        );
        let nothing = alert("FlowRunFailed", &json!({}));
        assert_eq!(
            card(&nothing)["metadata"]["summary"],
            "Tableau reported the event FlowRunFailed for (resource without a name) on the Tableau site marketing."
        );
        assert_eq!(card(&nothing)["metadata"]["threadId"], "marketing/FlowRunFailed");
    }

    #[test]
    fn a_name_becomes_no_markup_and_no_mention_on_a_card() {
        let card = card(&alert("ViewDeleted", &failed("`*a*` <!channel> [x](https://evil.example) _b_ R&D")));
        let (content, metadata) = (&card["content"], &card["metadata"]);
        insta::assert_snapshot!(content["title"].as_str().expect("a text"), @"view deleted: '∗a∗' ‹!channel› ［x］(https://evil.example) ＿b＿ R＆D");
        insta::assert_snapshot!(content["description"].as_str().expect("a text"), @"The view `'*a*' ‹!channel› [x](https://evil.example) _b_ R＆D` was deleted on the Tableau site marketing on 2026-05-21 at 08:00 UTC.");
        insta::assert_snapshot!(metadata["summary"].as_str().expect("a text"), @r#"The view "'∗a∗' ‹!channel› ［x］(https://evil.example) ＿b＿ R＆D" was deleted on the Tableau site marketing on 2026-05-21 at 08:00 UTC."#);
    }

    #[test]
    fn an_endless_name_is_truncated_everywhere() {
        let endless = "9".repeat(100_000);
        let alert = alert("WorkbookRefreshFailed", &json!({ "resource_name": endless, "resource_luid": endless }));
        assert!(alert.body.len() < 4 * 1024, "{} bytes", alert.body.len());
    }

    #[test]
    fn unknown_alert_events_are_named() {
        let unknown = |text: &str| {
            let events = AlertEvents::parse(text).expect("names");
            events.unknown().map(Event::to_string).collect::<Vec<_>>()
        };
        let misspelt = unknown("ViewDeleted,WorkbookRefreshFaild,none");
        assert_eq!(misspelt, ["WorkbookRefreshFaild", "none"]);
        assert!(unknown("all").is_empty() && unknown("NONE").is_empty() && unknown("ViewDeleted").is_empty());
    }

    proptest! {
        #[test]
        fn no_payload_makes_an_alert_unsafe_or_too_large(
            name in hostile::any_text(),
            luid in hostile::any_text(),
            time in hostile::any_text(),
            event in prop_oneof![
                sample::select(Event::catalogue().map(|event| event.to_string()).collect::<Vec<_>>()),
                "[A-Za-z]{1,300}".prop_map(String::from),
            ],
            has_name: bool,
        ) {
            let mut payload = json!({ "resource_luid": luid, "created_at": time });
            if has_name {
                payload["resource_name"] = json!(name);
            }
            let AlertMessage { subject, body } = alert(&event, &payload);
            hostile::assert_safe(&subject, &body);
        }
    }
}
