//! Lists in Tableau's answers: their shapes and their pagination.

use std::slice;

use serde_json::Value;
use shared::refreshes::state::MAX_ID_BYTES;

use crate::body::Unreadable;

/// The page of a list and the number of items in all pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pagination {
    pub(crate) number: usize,
    pub(crate) size: usize,
    pub(crate) total: usize,
}

/// The names of a list's members, and the errors of an answer without one.
pub(crate) struct List {
    /// The list's member, and within it the items'.
    pub(crate) members: [&'static str; 2],
    pub(crate) other: Unreadable,
    pub(crate) not_a_list: Unreadable,
}

impl List {
    /// Reads each item of the list with `read`.
    pub(crate) fn read<T>(self, answer: &Value, read: fn(&Value) -> T) -> Result<Vec<T>, Unreadable> {
        let [list, item] = self.members;
        let members = answer.as_object().ok_or("it is no JSON object")?;
        if members.keys().any(|member| ![list, "pagination"].contains(&member.as_str())) {
            return Err(self.other);
        }
        let items = items(&answer[list], item).ok_or(self.not_a_list)?;
        Ok(items.iter().map(read).collect())
    }
}

/// Returns the items of a list, which stand in its member `item` or are the list itself.
pub(crate) fn items<'v>(list: &'v Value, item: &str) -> Option<&'v [Value]> {
    // Empty lists seen: no member, null, an empty object, an empty list, or one of these one level down.
    let items = match list {
        Value::Object(list) => list.get(item).unwrap_or(&Value::Null),
        list => list,
    };
    match items {
        Value::Null => Some(&[]),
        Value::Array(items) => Some(items),
        Value::Object(_) => Some(slice::from_ref(items)),
        _ => None,
    }
}

pub(crate) fn read_pagination(answer: &Value) -> Result<Option<Pagination>, Unreadable> {
    let pagination = &answer["pagination"];
    if pagination.is_null() {
        return Ok(None);
    }
    let number = |member: &str| number(&pagination[member]).ok_or("its pagination has no numbers");
    Ok(Some(Pagination { number: number("pageNumber")?, size: number("pageSize")?, total: number("totalAvailable")? }))
}

/// Reads a number, which Tableau writes as a text.
pub(crate) fn number(value: &Value) -> Option<usize> {
    value.as_str().map_or_else(|| value.as_u64()?.try_into().ok(), |text| text.parse().ok())
}

/// Reads an identifier, which can be a part of an address.
pub(crate) fn identifier(value: &Value) -> Option<&str> {
    value.as_str().filter(|id| is_identifier(id))
}

/// Whether it can be an identifier of Tableau, which is short and plain.
pub(crate) fn is_identifier(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        // An address leaves out a part of dots alone.
        && id.bytes().any(|byte| byte.is_ascii_alphanumeric())
}
