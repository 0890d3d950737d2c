//! Webhooks in Tableau's JSON: the body of a create or update, the list, and the result of a test.

use serde_json::{Value, json};
use shared::{
    events::catalogue::Event,
    redaction::known_secrets::KnownSecrets,
    registration::signed_url::RegistrationUrl,
    sites::webhook::{DesiredWebhook, ObservedWebhook, OddName, OddWebhook},
};

use crate::{
    body::Unreadable,
    wire::list::{List, Pagination, number, read_pagination},
};

/// The most characters kept of a webhook's text. Ours are shorter, and foreign ones are only displayed.
const MAX_TEXT_CHARACTERS: usize = 500;

/// A row of a list of webhooks.
pub(crate) type WebhookRow = Result<ObservedWebhook, OddWebhook>;

/// One page of a list of webhooks.
#[derive(Debug)]
pub(crate) struct WebhookPage {
    pub(crate) rows: Vec<WebhookRow>,
    pub(crate) pagination: Option<Pagination>,
}

/// Writes the body of a create or update. An update needs all members too.
pub(crate) fn webhook(desired: &DesiredWebhook) -> Value {
    let DesiredWebhook { name, event, url } = desired;
    json!({ "webhook": {
        "name": name,
        "event": event,
        "isEnabled": true,
        "webhook-destination": { "webhook-destination-http": { "method": "POST", "url": url.expose() } },
    } })
}

/// Reads a page of the list.
pub(crate) fn read_webhooks(answer: &Value) -> Result<WebhookPage, Unreadable> {
    let webhooks = List {
        members: ["webhooks", "webhook"],
        other: "it is not a list of webhooks",
        not_a_list: "its webhooks are not a list",
    };
    Ok(WebhookPage { rows: webhooks.read(answer, read_row)?, pagination: read_pagination(answer)? })
}

/// Reads a webhook. One without a name, an identifier or a known state is odd: its owner decides what follows.
fn read_row(webhook: &Value) -> WebhookRow {
    let text = |member: &str| webhook[member].as_str().filter(|text| !text.is_empty()).map(truncate);
    let id = text("id").or_else(|| webhook["id"].as_i64().map(|id| id.to_string()));
    let url = webhook["webhook-destination"]["webhook-destination-http"]["url"].as_str();
    let url = url.map(|url| RegistrationUrl::observed(url.to_owned()));
    let odd = |name, what| Err(OddWebhook { name, id: id.clone(), url: url.clone(), what });
    let name = match &webhook["name"] {
        _ if !webhook.is_object() => return odd(OddName::Unreadable, "may be ours"),
        Value::Null => return odd(OddName::None, "leads to our receiver"),
        Value::String(name) if name.is_empty() => return odd(OddName::None, "leads to our receiver"),
        Value::String(name) => truncate(name),
        Value::Number(_) | Value::Bool(_) => return odd(OddName::Text(webhook["name"].to_string()), "has no name"),
        Value::Array(_) | Value::Object(_) => return odd(OddName::Unreadable, "may be ours"),
    };
    let Some(is_enabled) = read_switch(&webhook["isEnabled"]) else {
        return odd(OddName::Text(name), "is neither enabled nor disabled");
    };
    if id.is_none() {
        return odd(OddName::Text(name), "has no id");
    }
    let source = webhook["webhook-source"].as_object().and_then(|source| source.keys().next());
    let event = match text("event") {
        Some(name) => name.parse().ok(),
        None => source.and_then(|element| Event::from_source_element(element)),
    };
    // Tableau's reason may quote the address, which is a secret, and reports show the reason.
    let without_address = |reason: String| match &url {
        Some(url) => KnownSecrets::of_address(url).redacted(&reason).into_owned(),
        None => reason,
    };
    let status_change_reason = text("statusChangeReason").map(without_address);
    let updated_at = text("updatedAt");
    Ok(ObservedWebhook { id: id.unwrap_or_default(), name, event, url, is_enabled, status_change_reason, updated_at })
}

/// Truncates a text that is longer than any of ours, with a mark that none of ours has.
fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the size of a row in memory.
pub(crate) fn size_of_row(row: &WebhookRow) -> usize {
    let length = |text: Option<&String>| text.map_or(0, String::len);
    let url = |url: &Option<RegistrationUrl>| url.as_ref().map_or(0, |url| url.expose().len());
    let texts = match row {
        Ok(ObservedWebhook { id, name, event, url: to, is_enabled: _, status_change_reason: reason, updated_at }) => {
            let event = event.as_ref().map_or(0, |event| event.as_str().len());
            id.len() + name.len() + event + url(to) + length(reason.as_ref()) + length(updated_at.as_ref())
        }
        Err(OddWebhook { name, id, url: to, what: _ }) => {
            let name = match name {
                OddName::Text(name) => name.len(),
                OddName::None | OddName::Unreadable => 0,
            };
            name + length(id.as_ref()) + url(to)
        }
    };
    size_of_val(row) + texts
}

/// Reads whether a webhook is enabled; `None` if the value is unknown. API versions without the switch omit it.
fn read_switch(value: &Value) -> Option<bool> {
    match value {
        Value::Null => Some(true),
        Value::Bool(is_on) => Some(*is_on),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads the HTTP status of a test's destination; `None` if the destination did not answer.
pub(crate) fn read_test(answer: &Value) -> Result<Option<u16>, Unreadable> {
    let result = answer["webhookTestResult"].as_object().ok_or("it holds no test result")?;
    // One third-party client documents `statusCode`.
    let status = result.get("status").or_else(|| result.get("statusCode")).unwrap_or(&Value::Null);
    Ok(number(status).and_then(|status| status.try_into().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(answer: &Value) -> Result<Vec<String>, Unreadable> {
        Ok(read_webhooks(answer)?.rows.into_iter().flatten().map(|webhook| webhook.name).collect())
    }

    fn one(webhook: &Value) -> Result<ObservedWebhook, Unreadable> {
        let page = read_webhooks(&json!({ "webhooks": { "webhook": [webhook] } }))?;
        page.rows.into_iter().flatten().next().ok_or("none")
    }

    #[test]
    fn an_empty_list_is_read_in_every_shape() {
        for answer in [
            json!({ "webhooks": {} }),
            json!({ "webhooks": { "webhook": null } }),
            json!({ "webhooks": { "webhook": [] } }),
            json!({ "webhooks": null }),
            json!({ "webhooks": [] }),
            json!({}),
            json!({ "pagination": { "pageNumber": "1", "pageSize": "100", "totalAvailable": "0" } }),
        ] {
            assert_eq!(names(&answer), Ok(Vec::new()), "{answer}");
        }
    }

    #[test]
    fn a_lone_webhook_is_a_list() {
        let webhook = json!({ "id": "1", "name": "n" });
        for answer in [
            json!({ "webhooks": { "webhook": webhook } }),
            json!({ "webhooks": { "webhook": [webhook] } }),
            json!({ "webhooks": [webhook] }),
        ] {
            assert_eq!(names(&answer), Ok(vec!["n".to_owned()]), "{answer}");
        }
    }

    #[test]
    fn an_answer_without_a_whole_list_is_an_error() {
        for answer in [
            json!(null),
            json!([]),
            json!({ "error": { "code": "500000" } }),
            json!({ "webhooks": "none" }),
            json!({ "webhooks": { "webhook": 1 } }),
            json!({ "webhooks": {}, "pagination": { "pageNumber": "one" } }),
        ] {
            assert!(names(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_webhook_is_enabled_disabled_or_odd() {
        for (value, is_enabled) in [
            (json!(null), Some(true)),
            (json!(true), Some(true)),
            (json!("true"), Some(true)),
            (json!("True"), Some(true)),
            (json!(1), Some(true)),
            (json!("1"), Some(true)),
            (json!(false), Some(false)),
            (json!("FALSE"), Some(false)),
            (json!(0), Some(false)),
            (json!("0"), Some(false)),
            (json!(""), None),
            (json!("perhaps"), None),
            (json!(2), None),
            (json!(1.5), None),
            (json!([true]), None),
            (json!({}), None),
        ] {
            let webhook = read_row(&json!({ "id": 7, "name": "n", "isEnabled": value }));
            match (webhook, is_enabled) {
                (Ok(webhook), Some(is_enabled)) => {
                    assert_eq!((webhook.id.as_str(), webhook.is_enabled), ("7", is_enabled), "{value}");
                }
                (Err(odd), None) => assert_eq!(odd.what, "is neither enabled nor disabled", "{value}"),
                (webhook, _) => panic!("{value}: {webhook:?}"),
            }
        }
    }

    #[test]
    fn a_webhook_is_read_in_its_old_and_new_shape() -> Result<(), Unreadable> {
        let created: Option<Event> = "WorkbookCreated".parse().ok();
        let new = one(&json!({ "id": "1", "name": "n", "event": "WorkbookCreated", "isEnabled": "true",
            "statusChangeReason": "" }))?;
        assert_eq!((new.event, new.is_enabled, new.status_change_reason), (created.clone(), true, None));
        let old = one(&json!({ "id": "1", "name": "n",
            "webhook-source": { "webhook-source-event-workbook-created": {} } }))?;
        assert_eq!((old.event, old.is_enabled), (created, true));
        Ok(())
    }

    #[test]
    fn a_reason_hides_the_address_that_it_quotes() -> Result<(), Unreadable> {
        let webhook = one(&json!({ "id": "1", "name": "n", "isEnabled": false,
            "statusChangeReason": "4 attempts at https://receiver.example/hooks/a/B/c failed",
            "webhook-destination": { "webhook-destination-http": { "url": "https://receiver.example/hooks/a/B/c" } } }))?;
        assert_eq!(
            webhook.status_change_reason.as_deref(),
            Some("4 attempts at https://receiver.example[redacted] failed")
        );
        Ok(())
    }
}
