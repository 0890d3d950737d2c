//! Rendered messages of each kind, for each preset.

use serde_json::Map;
use shared::{alerts::data::AlertData, events::catalogue::Event};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-05-21 08:03:30 UTC);

/// `whsec_` and the base64 of 32 bytes.
const SIGNING_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn entry(members: &Value) -> TargetEntry {
    let mut entry = json!({ "address": "https://target.example/hook" });
    entry.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
    TargetEntry::parse(&"bi-team".parse().expect("a name"), &entry.to_string()).expect("an entry")
}

pub(crate) fn preset(name: &str) -> TargetEntry {
    let credentials = json!({ "type": "body", "member": "routing_key", "value": "0123456789abcdef0123456789abcdef" });
    let credentials = if name == "pagerduty" { credentials } else { json!({ "type": "none" }) };
    entry(&json!({ "preset": name, "credentials": credentials }))
}

pub(crate) fn custom(template: &str) -> TargetEntry {
    entry(&json!({ "preset": "custom", "template": template }))
}

pub(crate) fn messages() -> Vec<(String, TargetMessage)> {
    let all: Map<String, Value> = serde_json::from_str(include_str!("messages.json")).expect("an object");
    let parsed =
        all.into_iter().map(|(name, body)| (name, TargetMessage::parse(&body.to_string()).expect("a message")));
    parsed.collect()
}

fn message(name: &str) -> TargetMessage {
    messages().into_iter().find_map(|(own, message)| (own == name).then_some(message)).expect("a message")
}

pub(crate) fn rendered(entry: &TargetEntry, message: &TargetMessage) -> Result<Value, RenderError> {
    let body = render(entry, message, message.id(), NOW)?.body;
    Ok(serde_json::from_slice(&body).expect("JSON"))
}

/// Returns all messages as a preset renders them.
fn shown(name: &str) -> String {
    let entry = preset(name);
    let bodies = messages().into_iter().map(|(name, message)| (name, rendered(&entry, &message).expect("a body")));
    format!("{:#}", Value::from_iter(bodies))
}

#[test]
fn slack_gets_blocks() {
    insta::assert_snapshot!("slack", shown("slack"));
}

#[test]
fn teams_gets_a_card() {
    insta::assert_snapshot!("teams", shown("teams"));
}

#[test]
fn pagerduty_gets_events_that_begin_and_resolve_incidents() {
    insta::assert_snapshot!("pagerduty", shown("pagerduty"));
}

#[test]
fn zapier_gets_a_flat_object() {
    insta::assert_snapshot!("zapier", shown("zapier"));
}

#[test]
fn ifttt_gets_three_values() {
    insta::assert_snapshot!("ifttt", shown("ifttt"));
}

#[test]
fn a_target_that_coalesces_gets_the_number_of_messages() {
    let entry = preset("coefficient");
    let body = |rendered: Result<Rendered, RenderError>| String::from_utf8(rendered.expect("a body").body);
    assert_eq!(body(coalesced(&entry, 250)).as_deref(), Ok(r#"{"messages":250}"#));
    let message = message("alert: problem");
    assert_eq!(body(render(&entry, &message, message.id(), NOW)).as_deref(), Ok(r#"{"messages":1}"#));
}

#[test]
fn a_plain_target_gets_the_message_itself() {
    for (name, message) in messages() {
        let Rendered { body, content_type, headers } = render(&preset("plain"), &message, "1", NOW).expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        match message {
            TargetMessage::Event(event) => {
                assert_eq!((&body, content_type), (event.json(), "application/cloudevents+json"), "{name}");
            }
            TargetMessage::Alert(alert) => {
                assert_eq!((body, content_type), (json!(alert), "application/json"), "{name}")
            }
        }
        assert!(headers.is_empty());
    }
}

#[test]
fn every_event_has_its_own_title() {
    let titles = Event::catalogue().map(|event| {
        let body = json!({
            "specversion": "1.0", "id": "1", "source": "/tableau/marketing", "type": format!("com.tableau.{event}"),
            "data": { "resource_name": "Sales", "resource_luid": "99" },
        });
        let body = rendered(&preset("ifttt"), &TargetMessage::Event(body.into())).expect("a body");
        let text = |member: &str| body[member].as_str().expect("a text").lines().next().expect("a line").to_owned();
        format!("{}\n  {}", text("value1"), text("value2"))
    });
    insta::assert_snapshot!("titles", titles.collect::<Vec<_>>().join("\n"));
}

#[test]
fn an_alert_and_the_event_of_the_same_failure_have_one_incident() {
    let key = |name: &str| rendered(&preset("pagerduty"), &message(name)).expect("a body")["dedup_key"].clone();
    let failed = key("event: workbook refresh failed");
    assert_eq!(failed, "marketing/5998aaaf");
    for name in ["event: reason of a failure", "event: end of a failure", "alert: reason of a failure"] {
        assert_eq!(key(name), failed, "{name}");
    }
}

#[test]
fn a_signed_message_has_the_headers_of_standard_webhooks() {
    let entry = entry(&json!({ "preset": "plain", "signing_secret": SIGNING_SECRET }));
    let message = message("event: workbook refresh failed");
    let rendered = render(&entry, &message, message.id(), NOW).expect("a body");
    let header = |at: usize| (rendered.headers[at].0.as_str(), rendered.headers[at].1.expose_secret());
    assert_eq!(header(0), ("webhook-id", message.id()));
    assert_eq!(header(1), ("webhook-timestamp", "1779350610"));
    let headers: Map<_, _> =
        rendered.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().into())).collect();
    let body = String::from_utf8_lossy(&rendered.body);
    let signed = json!({ "secret": SIGNING_SECRET, "headers": headers, "body": body });
    insta::assert_snapshot!("signed", format!("{signed:#}"));
}

#[test]
fn an_event_is_sent_and_signed_byte_for_byte_as_it_was_received() {
    let text = r#"{"type":"T", "specversion":"1.0","source":"S","id":"7","data":{"n":1.50,"b":"\u00e9","a":12345678901234567890}}"#;
    let message = TargetMessage::parse(text).expect("an event");
    for further in [json!({}), json!({ "signing_secret": SIGNING_SECRET })] {
        let mut members = json!({ "preset": "plain" });
        members.as_object_mut().expect("an object").extend(further.as_object().expect("an object").clone());
        let body = render(&entry(&members), &message, message.id(), NOW).expect("a body").body;
        assert_eq!(String::from_utf8_lossy(&body), text);
    }
}

#[test]
fn an_identifier_cannot_change_what_is_signed() {
    let entry = entry(&json!({ "preset": "plain", "signing_secret": SIGNING_SECRET }));
    let rendered = render(&entry, &message("alert: problem"), "a.b\nc ü", NOW).expect("a body");
    assert_eq!(rendered.headers[0].1.expose_secret(), "a_b_c__");
}

#[test]
fn credentials_of_the_body_are_a_member_of_the_object() {
    let credentials = json!({ "type": "body", "member": "key", "value": "k-secret" });
    let message = message("alert: problem");
    let body = |preset: Value| rendered(&entry(&preset), &message);
    let zapier = body(json!({ "preset": "zapier", "credentials": credentials })).expect("a body");
    assert_eq!((&zapier["key"], &zapier["kind"]), (&json!("k-secret"), &json!("problem")));
    let template = "[{{ id }}]";
    let list = body(json!({ "preset": "custom", "template": template, "credentials": credentials }));
    assert_eq!(list, Err(RenderError::NoObject));
}

#[test]
fn debug_output_of_a_message_shows_no_secret_and_no_content() {
    let entry = entry(&json!({
        "preset": "plain",
        "signing_secret": SIGNING_SECRET,
        "credentials": { "type": "body", "member": "key", "value": "k-secret" },
    }));
    let shown = format!("{:?}", render(&entry, &message("alert: problem"), "1", NOW).expect("a body"));
    assert!(shown.contains("webhook-signature"), "{shown}");
    assert!(!["k-secret", "v1,", "marketing"].iter().any(|secret| shown.contains(secret)), "{shown}");
}

#[test]
fn a_template_has_the_event_the_alert_and_filters() {
    let template = r#"{
        "id": {{ id }}, "type": {{ event.type }}, "name": {{ event.data.resource_name | truncate(5) }},
        "missing": {{ event.data.nothing.at.all }}, "title": {{ alert.title | slack }}, "all": {{ event.data.project | json }},
        "fields": { "summary": {{ "Tableau: " ~ alert.title }}, "description": {{ event.data.notes | adf }} },
        "links": [{% for link in alert.links %}{{ link.url }}{% if not loop.last %}, {% endif %}{% endfor %}]
    }"#;
    let body = rendered(&custom(template), &message("event: reason of a failure")).expect("a body");
    insta::assert_snapshot!("custom", format!("{body:#}"));
    let body =
        rendered(&custom("[{{ event.type }}, {{ event.data.x.y }}, {{ alert.kind }}]"), &message("alert: problem"));
    assert_eq!(body, Ok(json!([null, null, "problem"])));
}

#[test]
fn no_construct_of_a_template_inserts_a_text_without_escaping() {
    let event = json!({
        "id": "1", "source": "/tableau/m", "type": "com.tableau.Test", "data": "\", \"injected\": \"",
    });
    for inserted in [
        "{{ event.data }}",
        "{{ event.data | safe }}",
        "{{ event.data | tojson }}",
        "{{ event.data | json | string }}",
        "{% autoescape false %}{{ event.data }}{% endautoescape %}",
        "{% autoescape 'none' %}{{ event.data }}{% endautoescape %}",
        "{% set it %}{{ event.data }}{% endset %}{{ it }}",
        "{% set it %}x{% endset %}{{ it | replace('x', event.data) }}",
        "{% set it = event.data | safe %}{{ it ~ 'x' }}",
        "{% set it %}%s{% endset %}{{ it | format(event.data) }}",
        "{{ '%s' | safe | format(event.data) }}",
        "{{ ['a', event.data] | join('b') }}",
        "{{ event['data'] }}",
        "{{ \"\\\", \\\"injected\\\": \\\"\" }}",
    ] {
        // Within quotation marks, a text without escaping could add a member.
        for template in [format!("{{\"a\": {inserted}}}"), format!("{{\"a\": \"{inserted}\"}}")] {
            match rendered(&custom(&template), &TargetMessage::Event(event.clone().into())) {
                Ok(body) => assert!(body["a"].is_string() && body.get("injected").is_none(), "{template}: {body}"),
                Err(error) => assert!(matches!(error, RenderError::Template(_)), "{template}: {error}"),
            }
        }
        let alone = rendered(&custom(inserted), &TargetMessage::Event(event.clone().into()));
        assert!(alone.as_ref().is_ok_and(Value::is_string), "{inserted}: {alone:?}");
    }
}

#[test]
fn a_template_that_does_not_work_is_an_error_that_repeats_nothing() {
    let endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}1";
    let doubling = format!("{{% set x = alert.text %}}{}1", "{% set x = x ~ x %}".repeat(60));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000));
    let errors = [
        "{\n\"k-secret\": {{ alert.title }",
        "{{ 'k-secret' | unknown }}",
        "{{ 1 + 'k-secret' }}",
        "{\"k-secret\": {{ alert.title }}",
        "k-secret",
        "{# nothing #}",
        endless,
        &doubling,
        "{% for a in range(90000) %}{{ alert }}{% endfor %}",
        "{{ [alert] * 9000 }}",
        "{{ alert | slack }}",
        "{{ 'k-secret' * 1000000000 }}",
        "{{ range(1000000000) }}",
    ]
    .map(|template| {
        let error = rendered(&custom(template), &message("alert: problem")).expect_err("an error");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        error.to_string()
    });
    insta::assert_snapshot!(errors.join("\n"), @r"
    the template does not compile: syntax error in line 2
    the template failed: unknown filter in line 1
    the template failed: invalid operation in line 1
    the template rendered no JSON: line 1, column 41 of the result is wrong
    the template rendered no JSON: line 1, column 1 of the result is wrong
    the template rendered no JSON: line 1, column 0 of the result is wrong
    the template does too much work: it has an endless loop, or renders too much text
    the template does too much work: it has an endless loop, or renders too much text
    the template does too much work: it has an endless loop, or renders too much text
    the template does too much work: it has an endless loop, or renders too much text
    the template failed: not a primitive in line 1
    the template does too much work: it has an endless loop, or renders too much text
    the template failed: invalid operation in line 1
    ");
    assert!(matches!(rendered(&custom(&deep), &message("alert: problem")), Err(RenderError::Template(_))));
}

#[test]
fn a_message_that_is_too_large_is_an_error() {
    let event = json!({ "id": "1", "source": "/tableau/m", "type": "com.tableau.Test", "data": "x".repeat(600_000) });
    let result = render(&preset("plain"), &TargetMessage::Event(event.into()), "1", NOW);
    assert!(matches!(result, Err(RenderError::TooLarge { bytes: 600_000.., max: MAX_BYTES })), "{result:?}");
}

#[test]
fn a_card_that_is_too_large_for_teams_has_a_shorter_text() {
    let TargetMessage::Alert(alert) = message("alert: problem") else { panic!("an alert") };
    for text in ["📊".repeat(3000), "a\n".repeat(1500)] {
        let alert = AlertData { text, next_steps: vec!["\"".repeat(3000); 9], ..alert.clone() };
        let body = render(&preset("teams"), &TargetMessage::Alert(alert), "1", NOW).expect("a body").body;
        assert!((4 * 1024..=MAX_TEAMS_BYTES).contains(&body.len()), "{} bytes", body.len());
    }
}
