//! Holds in the state table: something about a target that must not happen again until a time.
//!
//! Their keys begin with `target#`, and the reconciler leaves such items alone. A hold that has ended stays until it is taken
//! again: a target has two at most.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    Client,
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use shared::{targets::hold::Hold, timestamp::Timestamp};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::BoxError;

/// The attribute with an item's key.
const KEY: &str = "pk";

const SINCE: &str = "since";
const UNTIL: &str = "until";

/// There is no hold, or it has ended. Times of one form compare as texts.
const IS_FREE: &str = "attribute_not_exists(#key) OR #until <= :since";

/// A hold that follows one that has ended without a release is about the same matter.
const STORE: &str = "SET #since = if_not_exists(#since, :since), #until = :until";

/// The table could not be used.
#[derive(Debug, Error)]
#[error("the state table could not be used")]
pub struct TableUnavailable(#[source] pub BoxError);

/// A hold was not taken.
#[derive(Debug, Error)]
pub enum HoldError {
    /// It is taken, until a time if that is known.
    #[error("it is taken")]
    Taken(Option<OffsetDateTime>),
    /// The table could not be used.
    #[error(transparent)]
    Failed(#[from] TableUnavailable),
}

/// Storage for holds.
pub trait Holds {
    /// Stores a hold, unless there is one that has not ended when this one begins. Returns it as it is stored: it began with
    /// the first one of its key that was not released.
    fn take(&self, key: &str, hold: Hold) -> impl Future<Output = Result<Hold, HoldError>> + Send;

    /// Deletes a hold. Returns it, if there was one.
    fn release(&self, key: &str) -> impl Future<Output = Result<Option<Hold>, TableUnavailable>> + Send;
}

/// The state table of the stack.
#[derive(Clone, Debug)]
pub struct StateTable {
    client: Client,
    name: String,
}

impl StateTable {
    /// Uses the table of this name.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }
}

impl Holds for StateTable {
    async fn take(&self, key: &str, hold: Hold) -> Result<Hold, HoldError> {
        let update = self.client.update_item().table_name(&self.name).key(KEY, AttributeValue::S(key.to_owned()));
        let update = update.update_expression(STORE).condition_expression(IS_FREE);
        let update = update.expression_attribute_names("#key", KEY).expression_attribute_names("#since", SINCE);
        let update = update.expression_attribute_names("#until", UNTIL);
        let update = update.expression_attribute_values(":since", time_value(hold.since));
        let update = update.expression_attribute_values(":until", time_value(hold.until));
        let update = update.return_values(ReturnValue::AllNew);
        let update = update.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match update.send().await {
            Ok(stored) => return Ok(stored.attributes.as_ref().and_then(hold_of).unwrap_or(hold)),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(taken)) => {
                Err(HoldError::Taken(taken.item().and_then(|item| time_of(item, UNTIL))))
            }
            _ => Err(TableUnavailable(error.into()).into()),
        }
    }

    async fn release(&self, key: &str) -> Result<Option<Hold>, TableUnavailable> {
        let delete = self.client.delete_item().table_name(&self.name).key(KEY, AttributeValue::S(key.to_owned()));
        let delete = delete.return_values(ReturnValue::AllOld).send().await;
        let item = delete.map_err(|error| TableUnavailable(error.into()))?.attributes;
        Ok(item.as_ref().and_then(hold_of))
    }
}

fn hold_of(item: &HashMap<String, AttributeValue>) -> Option<Hold> {
    Some(Hold { since: time_of(item, SINCE)?, until: time_of(item, UNTIL)? })
}

fn time_value(at: OffsetDateTime) -> AttributeValue {
    AttributeValue::S(Timestamp(at).to_string())
}

fn time_of(item: &HashMap<String, AttributeValue>, name: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(item.get(name)?.as_s().ok()?, &Rfc3339).ok()
}
