use std::collections::BTreeSet;

use proptest::{option, prelude::*, sample::select};
use serde_json::Map;
use shared::{
    alerts::data::{AlertData, AlertKind, AlertLink, AlertResource, Severity},
    events::catalogue::Event,
};
use time::macros::datetime;

use super::*;
use crate::render::hostile;

const NOW: OffsetDateTime = datetime!(2026-05-21 08:03:30 UTC);

/// `whsec_` and the base64 of 32 bytes.
const SIGNING_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Types of events with different titles.
const TYPES: [&str; 5] =
    ["WorkbookRefreshFailed", "RefreshFailureExplained", "RefreshFailureResolved", "ViewDeleted", "Test"];

fn entry(members: &Value) -> TargetEntry {
    let mut entry = json!({ "address": "https://target.example/hook" });
    entry.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
    TargetEntry::parse(&"bi-team".parse().expect("a name"), &entry.to_string()).expect("an entry")
}

fn preset(name: &str) -> TargetEntry {
    let credentials = json!({ "type": "body", "member": "routing_key", "value": "0123456789abcdef0123456789abcdef" });
    let credentials = if name == "pagerduty" { credentials } else { json!({ "type": "none" }) };
    entry(&json!({ "preset": name, "credentials": credentials }))
}

fn custom(template: &str) -> TargetEntry {
    entry(&json!({ "preset": "custom", "template": template }))
}

fn messages() -> Vec<(String, TargetMessage)> {
    let all: Map<String, Value> =
        serde_json::from_str(include_str!("../../tests/presets/messages.json")).expect("an object");
    let parsed =
        all.into_iter().map(|(name, body)| (name, TargetMessage::parse(&body.to_string()).expect("a message")));
    parsed.collect()
}

fn message(name: &str) -> TargetMessage {
    messages().into_iter().find_map(|(own, message)| (own == name).then_some(message)).expect("a message")
}

fn rendered(entry: &TargetEntry, message: &TargetMessage) -> Result<Value, RenderError> {
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
fn a_plain_target_gets_the_message_itself() {
    for (name, message) in messages() {
        let Rendered { body, content_type, headers } = render(&preset("plain"), &message, "1", NOW).expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        match message {
            TargetMessage::Event(event) => {
                assert_eq!((body, content_type), (event, "application/cloudevents+json"), "{name}");
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
        let body = rendered(&preset("ifttt"), &TargetMessage::Event(body)).expect("a body");
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
            match rendered(&custom(&template), &TargetMessage::Event(event.clone())) {
                Ok(body) => assert!(body["a"].is_string() && body.get("injected").is_none(), "{template}: {body}"),
                Err(error) => assert!(matches!(error, RenderError::Template(_)), "{template}: {error}"),
            }
        }
        let alone = rendered(&custom(inserted), &TargetMessage::Event(event.clone()));
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
    the template failed: invalid operation in line 1
    ");
    assert!(matches!(rendered(&custom(&deep), &message("alert: problem")), Err(RenderError::Template(_))));
}

#[test]
fn a_message_that_is_too_large_is_an_error() {
    let event = json!({ "id": "1", "source": "/tableau/m", "type": "com.tableau.Test", "data": "x".repeat(600_000) });
    let result = render(&preset("plain"), &TargetMessage::Event(event), "1", NOW);
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

/// Returns the path of each member, with list positions left out.
fn paths(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
        paths.insert(path.to_owned());
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, member)| walk(member, &format!("{path}.{name}"), paths));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}[]"), paths)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

/// Returns the paths of all snapshots of a preset.
fn known_paths(entry: &TargetEntry) -> BTreeSet<String> {
    messages().iter().flat_map(|(_, message)| paths(&rendered(entry, message).expect("a body"))).collect()
}

/// Calls a function with each object in a value.
fn each_object(value: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            visit(members);
            members.values().for_each(|member| each_object(member, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| each_object(item, visit)),
        _ => {}
    }
}

fn characters(value: &Value) -> usize {
    value.as_str().expect("a text").encode_utf16().count()
}

fn assert_slack(body: &Value) {
    let fallback = body["text"].as_str().expect("a text");
    assert!(!fallback.contains(['<', '>', '*', '~', '`', '@']) && characters(&body["text"]) < 4000, "{fallback}");
    let blocks = body["blocks"].as_array().expect("a list");
    assert!(blocks.len() <= 50);
    for block in blocks {
        let texts = match block["type"].as_str().expect("a type") {
            "header" => {
                assert!(characters(&block["text"]["text"]) <= 150);
                vec![&block["text"]]
            }
            "section" => vec![&block["text"]],
            "context" => block["elements"].as_array().expect("a list").iter().collect(),
            other => panic!("{other}"),
        };
        assert!((1..=10).contains(&texts.len()));
        for text in texts {
            assert!((1..=3000).contains(&characters(&text["text"])), "{text}");
            let shown = text["text"].as_str().expect("a text");
            match text["type"].as_str().expect("a type") {
                "plain_text" => assert!(!shown.contains(['<', '>']) && text["emoji"] == false, "{text}"),
                "mrkdwn" => {
                    let link = shown.strip_prefix("<http").and_then(|rest| rest.strip_suffix('>')).expect("a link");
                    let (url, label) = link.split_once('|').expect("a label");
                    assert!(
                        !url.contains(['<', '>', '|', ' ']) && !label.contains(['<', '>', '*', '@', '\n']),
                        "{text}"
                    );
                    assert_eq!(text["verbatim"], true);
                }
                other => panic!("{other}"),
            }
        }
    }
}

fn assert_teams(body: &Value) {
    assert!(body.to_string().len() <= MAX_TEAMS_BYTES);
    each_object(body, &mut |object| match object.get("type").and_then(Value::as_str) {
        // The only text elements are runs, which have no markup.
        Some("message" | "AdaptiveCard" | "Container" | "RichTextBlock") => assert!(!object.contains_key("text")),
        Some("TextRun") => {
            let text = object["text"].as_str().expect("a text");
            assert!(!text.is_empty() && !text.contains('\n') && !text.contains("{{"), "{text:?}");
        }
        Some("Action.OpenUrl") => assert!(object["url"].as_str().expect("a text").starts_with("http")),
        Some(other) => panic!("{other}"),
        None => {}
    });
}

fn assert_pagerduty(body: &Value) {
    assert!(["trigger", "resolve"].map(Value::from).contains(&body["event_action"]));
    assert!(["error", "warning", "info"].map(Value::from).contains(&body["payload"]["severity"]));
    assert!((1..=255).contains(&body["dedup_key"].as_str().expect("a text").chars().count()));
    assert!((1..=1024).contains(&characters(&body["payload"]["summary"])));
    assert!((1..=255).contains(&characters(&body["payload"]["source"])));
    assert!(body.to_string().len() <= MAX_BYTES);
}

/// Fails if a message breaks a limit of a service, or a text of it changes the structure.
fn assert_renders_safely(message: &TargetMessage) {
    for name in ["slack", "teams", "pagerduty", "zapier", "ifttt"] {
        let entry = preset(name);
        let body = rendered(&entry, message).expect("a body");
        let unknown: Vec<_> = paths(&body).difference(&known_paths(&entry)).cloned().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        match name {
            "slack" => assert_slack(&body),
            "teams" => assert_teams(&body),
            "pagerduty" => assert_pagerduty(&body),
            _ => {}
        }
        each_text(&body, &mut |text| {
            let visible = |character: char| !character.is_control() || character == '\n';
            assert!(
                text.chars().all(visible) && !text.contains(['\u{202e}', '\u{2066}', '\u{200f}']),
                "{name}: {text:?}"
            );
        });
    }
    assert!(rendered(&preset("plain"), message).is_ok());
}

fn each_text(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Object(members) => members.values().for_each(|member| each_text(member, visit)),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        _ => {}
    }
}

fn any_alert() -> impl Strategy<Value = AlertData> {
    let link = (hostile::text(), hostile::text(), any::<bool>()).prop_map(|(label, url, is_page)| AlertLink {
        label,
        url: if is_page { "https://tableau.example/#/site/a".to_owned() } else { url },
    });
    let resource = (hostile::text(), hostile::text(), option::of(hostile::text()), option::of(hostile::text()));
    let resource = resource.prop_map(|(kind, id, name, project)| AlertResource { kind, id, name, project });
    let kind = select(vec![AlertKind::RefreshFailed, AlertKind::RefreshResolved, AlertKind::Problem, AlertKind::Alarm]);
    let severity = select(vec![Severity::Info, Severity::Warning, Severity::Error]);
    let texts = proptest::collection::vec(hostile::text(), 3);
    let lists = (proptest::collection::vec(hostile::text(), 0..9), proptest::collection::vec(link, 0..9));
    let sites = proptest::collection::vec(hostile::text(), 0..9);
    (kind, severity, texts, lists, sites, option::of(resource), any::<bool>(), "[!-~]{1,255}").prop_map(
        |(kind, severity, mut texts, (next_steps, links), sites, resource, resolved, event_id)| {
            let mut text = || texts.pop().unwrap_or_default();
            AlertData {
                kind,
                severity,
                title: text(),
                text: text(),
                next_steps,
                links,
                site: sites.first().cloned(),
                sites,
                resource,
                thread: text(),
                resolved,
                event_id,
            }
        },
    )
}

fn any_event() -> impl Strategy<Value = Value> {
    let event_type = prop_oneof![4 => select(&TYPES[..]).prop_map(str::to_owned), 1 => hostile::text()];
    let members = proptest::collection::vec(hostile::value(), 9);
    (event_type, members, hostile::value(), any::<bool>()).prop_map(|(event_type, members, other, is_object)| {
        let mut members = members.into_iter();
        let mut value = || members.next().unwrap_or_default();
        let data = json!({
            "resource_type": value(), "resource_name": value(), "resource_luid": value(), "resource_url": value(),
            "history_url": "https://tableau.example/", "project": { "name": value() }, "notes": value(),
            "owner": { "name": value(), "email": value() }, "failures_in_a_row": 2, "next_run_at": value(),
        });
        json!({
            "id": "1", "source": "/tableau/marketing", "type": format!("com.tableau.{event_type}"),
            "data": if is_object { data } else { other },
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_alert_breaks_a_limit_or_changes_the_structure(alert in any_alert()) {
        assert_renders_safely(&TargetMessage::Alert(alert));
    }

    #[test]
    fn no_event_breaks_a_limit_or_changes_the_structure(event in any_event()) {
        assert_renders_safely(&TargetMessage::Event(event));
    }

    #[test]
    fn filters_make_any_text_safe_for_their_service(name in hostile::text()) {
        let event = json!({ "id": "1", "source": "/tableau/m", "type": "com.tableau.Test", "data": name });
        let template = custom("[{{ event.data | slack }}, {{ event.data | adf }}, {{ event.data | truncate(20) }}]");
        let body = rendered(&template, &TargetMessage::Event(event)).expect("a body");
        let slack = body[0].as_str().expect("a text");
        assert!(!slack.contains(['<', '>', '*', '~', '`', '@']), "{slack}");
        each_object(&body[1], &mut |node| {
            let is_filled = node.get("text").is_none_or(|text| text.as_str().is_some_and(|text| !text.is_empty()));
            assert!(is_filled && ["doc", "paragraph", "text"].map(Value::from).contains(&node["type"]), "{node:?}");
        });
        assert!(characters(&body[2]) <= 20);
    }

    #[test]
    fn no_foreign_text_of_an_event_is_markup_or_a_mention(event in any_event()) {
        for name in ["zapier", "ifttt"] {
            let body = rendered(&preset(name), &TargetMessage::Event(event.clone())).expect("a body");
            each_text(&body, &mut |text| {
                assert!(!text.contains(['<', '>', '&', '*', '~', '`', '[', ']', '\\', '@']), "{name}: {text}");
            });
        }
    }
}
