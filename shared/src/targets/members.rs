//! Members of an entry, which is a JSON object with objects in it.

use serde_json::{Map, Value};

use crate::settings::SettingsReader;

/// Finds the text of a member, such as `address` or `credentials.token`.
pub(crate) fn find<'a>(entry: &'a Map<String, Value>, path: &str) -> Option<&'a str> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let member = entry.get(first)?;
    rest.map_or(Some(member), |rest| member.get(rest)).and_then(Value::as_str)
}

/// Adds a problem if an object has other members than the allowed ones. It does not name them: a secret may be in the wrong
/// place.
pub(crate) fn check<L: Fn(&str) -> Option<String>>(
    object: &str,
    members: &Map<String, Value>,
    allowed: &[&str],
    reader: &mut SettingsReader<L>,
) {
    let unknown = members.keys().filter(|member| !allowed.contains(&member.as_str())).count();
    if unknown > 0 {
        let members = if unknown == 1 { "a member that is" } else { "members that are" };
        reader.add(object, format_args!("has {members} not known: allowed are {}", allowed.join(", ")));
    }
}
