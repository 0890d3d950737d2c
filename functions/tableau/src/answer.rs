//! Answers with a status of success.

use std::borrow::Cow;

use reqwest::StatusCode;
use serde_json::Value;
use shared::redaction::known_secrets::KnownSecrets;

use crate::{
    body::{self, Unreadable},
    call::Call,
    error::TableauError,
    secrets,
    wire::errors::read_error,
};

/// An answer with a status of success.
pub(crate) struct Answer {
    call: Call,
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    /// Makes an answer of any other status an error. A server may quote the request: the error shows none of the secrets.
    pub(crate) fn checked(
        call: Call,
        status: StatusCode,
        body: Vec<u8>,
        secrets: &KnownSecrets,
    ) -> Result<Self, TableauError> {
        if status.is_success() {
            return Ok(Self { call, status, body });
        }
        let (code, text) = read_error(&String::from_utf8_lossy(&body), secrets);
        Err(TableauError::Refused { call: Box::new(call), status, code, text })
    }

    /// Reads the body with all known secrets hidden, and adds the secrets that it holds to them.
    pub(crate) fn read<T>(
        &self,
        secrets: &mut KnownSecrets,
        read: impl FnOnce(&Value) -> Result<T, Unreadable>,
    ) -> Result<T, TableauError> {
        let value = body::parse(&self.body).map(|mut value| {
            secrets::hide(&mut value, secrets);
            value
        });
        value.and_then(|value| read(&value)).map_err(|what| self.unreadable(what))
    }

    pub(crate) fn unreadable(&self, what: impl Into<Cow<'static, str>>) -> TableauError {
        let Self { call, status, body: _ } = self;
        TableauError::Unreadable { call: Box::new(call.clone()), status: *status, what: what.into() }
    }
}
