//! Properties of rendered messages, for any text in them.

use std::collections::BTreeSet;

use proptest::{option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use shared::{
    alerts::data::{AlertData, AlertKind, AlertLink, AlertResource, Severity},
    targets::{entry::TargetEntry, message::TargetMessage},
};

use crate::render::{
    MAX_BYTES, MAX_TEAMS_BYTES, RenderError, hostile,
    tests::{custom, messages, preset, rendered},
};

/// Types of events with different titles.
const TYPES: [&str; 5] =
    ["WorkbookRefreshFailed", "RefreshFailureExplained", "RefreshFailureResolved", "ViewDeleted", "Test"];

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
    // No message of a queue is as large as the largest alert here.
    let plain = rendered(&preset("plain"), message);
    assert!(matches!(plain, Ok(_) | Err(RenderError::TooLarge { .. })), "{plain:?}");
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
        assert_renders_safely(&TargetMessage::Event(event.into()));
    }

    #[test]
    fn filters_make_any_text_safe_for_their_service(name in hostile::text()) {
        let event = json!({ "id": "1", "source": "/tableau/m", "type": "com.tableau.Test", "data": name });
        let template = custom("[{{ event.data | slack }}, {{ event.data | adf }}, {{ event.data | truncate(20) }}]");
        let body = rendered(&template, &TargetMessage::Event(event.into())).expect("a body");
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
            let body = rendered(&preset(name), &TargetMessage::Event(event.clone().into())).expect("a body");
            each_text(&body, &mut |text| {
                assert!(!text.contains(['<', '>', '&', '*', '~', '`', '[', ']', '\\', '@']), "{name}: {text}");
            });
        }
    }
}
