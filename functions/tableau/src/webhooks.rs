//! Webhooks of a site: list, create, update, delete and test.

use std::collections::HashSet;

use reqwest::{Method, StatusCode};
use shared::sites::webhook::{DesiredWebhook, ObservedWebhook, OddName, OddWebhook};

use crate::{
    answer::Answer,
    error::TableauError,
    paging::PageBudget,
    retry::RetryPolicy,
    session::{Request, Session},
    wire::webhooks::{WebhookPage, WebhookRow, read_test, read_webhooks, size_of_row, webhook},
};

/// Code of a webhook that does not exist.
const WEBHOOK_NOT_FOUND: &str = "400113";

/// The webhooks of a site.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// The readable ones, in the order of the list.
    pub readable: Vec<ObservedWebhook>,
    /// Titles of the others, which are foreign.
    pub odd: Vec<String>,
}

impl Session<'_> {
    /// Lists all webhooks of the site, ours and foreign ones.
    ///
    /// # Errors
    ///
    /// As for every call. A partial list is an error, and so is an unreadable webhook that may be ours.
    pub async fn list(&mut self, may_be_ours: impl Fn(&OddWebhook) -> bool) -> Result<Webhooks, TableauError> {
        let (mut rows, mut query, mut budget) = (Vec::new(), String::new(), PageBudget::new());
        loop {
            let request = Request { query: &query, max_bytes: budget.bytes, ..Request::get(&["webhooks"]) };
            let answer = self.call(request).await?;
            let WebhookPage { rows: page, pagination } = self.read(&answer, read_webhooks)?;
            if let Some(odd) = page.iter().filter_map(|row| row.as_ref().err()).find(|odd| may_be_ours(odd)) {
                return Err(unreadable_webhook(&answer, odd));
            }
            budget.take(&answer, page.iter().map(size_of_row))?;
            let page_is_empty = page.is_empty();
            rows.extend(page);
            let Some(pagination) = pagination else { break };
            if rows.len() >= pagination.total {
                if count_distinct(&rows) == pagination.total {
                    break;
                }
                return Err(answer.unreadable("its pages do not add up to the number of webhooks it names"));
            }
            if page_is_empty {
                return Err(answer.unreadable("it ends before the number of webhooks it names"));
            }
            query = format!("pageNumber={}&pageSize={}", budget.next_page(), pagination.size);
        }
        let mut webhooks = Webhooks::default();
        for row in rows {
            match row {
                Ok(webhook) => webhooks.readable.push(webhook),
                Err(odd) => webhooks.odd.push(odd.title()),
            }
        }
        Ok(webhooks)
    }

    /// Creates a webhook.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn create(&mut self, desired: &DesiredWebhook) -> Result<(), TableauError> {
        let (body, retry) = (Some(webhook(desired)), RetryPolicy::CREATE);
        self.call(Request { body, retry, ..Request::new(Method::POST, &["webhooks"]) }).await.map(drop)
    }

    /// Sets the address and event of a webhook, and enables it.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn update(&mut self, id: &str, desired: &DesiredWebhook) -> Result<(), TableauError> {
        let body = Some(webhook(desired));
        self.call(Request { body, ..Request::new(Method::PUT, &["webhooks", id]) }).await.map(drop)
    }

    /// Deletes a webhook. One that does not exist is no error.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn delete(&mut self, id: &str) -> Result<(), TableauError> {
        match self.call(Request::new(Method::DELETE, &["webhooks", id])).await {
            Err(TableauError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) if error.has_code(WEBHOOK_NOT_FOUND) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Makes Tableau test a webhook. Returns the HTTP status of the destination, `None` if it did not answer.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn test(&mut self, id: &str) -> Result<Option<u16>, TableauError> {
        let answer = self.call(Request::get(&["webhooks", id, "test"])).await?;
        self.read(&answer, read_test)
    }
}

fn unreadable_webhook(answer: &Answer, odd: &OddWebhook) -> TableauError {
    let id = odd.id.as_ref().filter(|_| matches!(odd.name, OddName::Text(_)));
    let id = id.map_or_else(String::new, |id| format!(" ({id})"));
    answer.unreadable(format!("{}{id} {}", odd.title(), odd.what))
}

/// Counts the webhooks, those with the same identifier once, and each one without an identifier.
fn count_distinct(rows: &[WebhookRow]) -> usize {
    let (mut ids, mut without_id) = (HashSet::new(), 0);
    for row in rows {
        match row.as_ref().map_or_else(|odd| odd.id.as_ref(), |webhook| Some(&webhook.id)) {
            Some(id) => _ = ids.insert(id),
            None => without_id += 1,
        }
    }
    ids.len() + without_id
}
