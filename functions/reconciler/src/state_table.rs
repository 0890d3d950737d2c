//! The DynamoDB table with the reconciler's state. Each write is conditional on the version that was read, so that of two
//! runs one gives way.

use std::{collections::HashMap, error::Error as StdError};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::{delete_item::DeleteItemError, put_item::PutItemError},
    types::AttributeValue,
};
use serde_json::Value;
use thiserror::Error;

use crate::BoxError;

/// The attribute with an item's key.
const KEY: &str = "pk";

/// The attribute with an item's version, which each write increases by one.
const VERSION: &str = "version";

/// The condition that an item has the version that was read.
const IS_VERSION: &str = "#version = :version";

/// The condition that an item has no version: there is no item, or an administrator stored it without one.
const HAS_NONE: &str = "attribute_not_exists(#version)";

/// An item of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its key, such as `site#marketing`.
    pub key: String,
    /// Its version; `None` if an administrator stored it without one.
    pub version: Option<u64>,
    /// Its other attributes, as a JSON object.
    pub content: Value,
}

/// The table could not be used.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct TableUnavailable(pub BoxError);

/// An item was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Another run wrote it since it was read.
    #[error("another run wrote it meanwhile")]
    Conflict,
    /// The table did not accept it.
    #[error(transparent)]
    Failed(#[from] TableUnavailable),
}

/// Storage for the reconciler's state.
pub trait StateTable {
    /// Reads every item, as it is at this moment.
    fn read(&self) -> impl Future<Output = Result<Vec<Item>, TableUnavailable>> + Send;

    /// Writes an item in place of the `version` that was read; `None` if there was none.
    fn write(
        &self,
        key: &str,
        content: &Value,
        version: Option<u64>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// Deletes an item of which the `version` was read. It is no error if the item is gone.
    fn delete(&self, key: &str, version: Option<u64>) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// A DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoTable {
    client: Client,
    name: String,
}

impl DynamoTable {
    /// Uses the table of this name.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }
}

impl StateTable for DynamoTable {
    async fn read(&self) -> Result<Vec<Item>, TableUnavailable> {
        // Consistent: the run before may have stored its state a moment ago.
        let pages = self.client.scan().table_name(&self.name).consistent_read(true).into_paginator().items().send();
        let items = pages.collect::<Result<Vec<_>, _>>().await;
        let items = items.map_err(|error| TableUnavailable(error.into()))?;
        Ok(items.into_iter().map(item_of).collect())
    }

    async fn write(&self, key: &str, content: &Value, version: Option<u64>) -> Result<(), WriteError> {
        let item = attributes_of(key, content, version)?;
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let condition = if version.is_some() { IS_VERSION } else { HAS_NONE };
        let put = put.condition_expression(condition).expression_attribute_names("#version", VERSION);
        let put = put.set_expression_attribute_values(values_of(version)).send().await;
        put.map(drop).map_err(|error| refusal(error, PutItemError::is_conditional_check_failed_exception))
    }

    async fn delete(&self, key: &str, version: Option<u64>) -> Result<(), WriteError> {
        let delete = self.client.delete_item().table_name(&self.name).key(KEY, AttributeValue::S(key.to_owned()));
        let condition = if version.is_some() { format!("{HAS_NONE} OR {IS_VERSION}") } else { HAS_NONE.to_owned() };
        let delete = delete.condition_expression(condition).expression_attribute_names("#version", VERSION);
        let delete = delete.set_expression_attribute_values(values_of(version)).send().await;
        delete.map(drop).map_err(|error| refusal(error, DeleteItemError::is_conditional_check_failed_exception))
    }
}

/// Returns the values that [`IS_VERSION`] names.
fn values_of(version: Option<u64>) -> Option<HashMap<String, AttributeValue>> {
    version.map(|version| HashMap::from([(":version".to_owned(), AttributeValue::N(version.to_string()))]))
}

/// Distinguishes a race that another run won from other failures.
fn refusal<E: StdError + Send + Sync + 'static>(error: SdkError<E>, is_conflict: impl Fn(&E) -> bool) -> WriteError {
    if error.as_service_error().is_some_and(is_conflict) {
        WriteError::Conflict
    } else {
        WriteError::Failed(TableUnavailable(error.into()))
    }
}

/// Reads an item's attributes. One with attributes that the reconciler never stores has no content.
fn item_of(mut attributes: HashMap<String, AttributeValue>) -> Item {
    let key = attributes.remove(KEY).and_then(|key| key.as_s().ok().cloned()).unwrap_or_default();
    let version = attributes.remove(VERSION).and_then(|version| version.as_n().ok()?.parse().ok());
    Item { key, version, content: serde_dynamo::from_item(attributes).unwrap_or_default() }
}

/// Returns the attributes of an item that is written in place of a version.
fn attributes_of(
    key: &str,
    content: &Value,
    version: Option<u64>,
) -> Result<HashMap<String, AttributeValue>, TableUnavailable> {
    let mut attributes: HashMap<_, _> =
        serde_dynamo::to_item(content).map_err(|error| TableUnavailable(error.into()))?;
    attributes.insert(KEY.to_owned(), AttributeValue::S(key.to_owned()));
    attributes.insert(VERSION.to_owned(), AttributeValue::N((version.unwrap_or_default() + 1).to_string()));
    Ok(attributes)
}
