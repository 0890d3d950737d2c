//! Lists in Tableau's answers: their shapes and their pagination.

use serde_json::Value;

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
        // Empty lists seen: no member, null, an empty object, an empty list, or one of these one level down.
        let items = match &answer[list] {
            Value::Object(list) => list.get(item).unwrap_or(&Value::Null),
            list => list,
        };
        match items {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items.iter().map(read).collect()),
            Value::Object(_) => Ok(vec![read(items)]),
            _ => Err(self.not_a_list),
        }
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
