//! What an invocation asks for.

use serde::Deserialize;

/// The input of an invocation. Anything it does not know is an error, since a misspelt wish would pass unheard.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What to do.
    pub action: Action,
    /// The sites to do it for, by our names for them; all if none are named.
    #[serde(default)]
    pub sites: Option<Vec<String>>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Make every site's webhooks what they should be.
    Apply,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let error = |text| serde_json::from_str::<Request>(text).expect_err(text).to_string();
        assert!(error("{}").starts_with("missing field `action`"));
        assert!(error(r#"{"action":"aply"}"#).starts_with("unknown variant `aply`, expected `apply`"));
        assert!(
            error(r#"{"action":"apply","site":"a"}"#).starts_with("unknown field `site`, expected `action` or `sites`")
        );
    }
}
