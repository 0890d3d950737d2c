//! What an invocation asks for.

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Say what [`Action::Apply`] would change, and change nothing.
    Plan,
    /// Make every site's webhooks what they should be.
    #[default]
    Apply,
    /// Have Tableau test every webhook of ours.
    Test,
    /// Put a new signing key in front and move every webhook to it. Always for all sites, since all share the keys.
    Rotate,
    /// Delete our webhooks, and no others.
    Destroy,
}

impl Action {
    /// What becomes of what a run could not do: its `next` run does it, unless nobody runs this but who asks for it.
    pub(crate) fn or_again(self, next: &str) -> String {
        match self {
            Self::Apply | Self::Rotate => next.to_owned(),
            Self::Plan | Self::Test | Self::Destroy => "Run this again".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let error = |text| serde_json::from_str::<Request>(text).expect_err(text).to_string();
        assert!(error("{}").starts_with("missing field `action`"));
        let expected = "unknown variant `aply`, expected one of `plan`, `apply`, `test`, `rotate`, `destroy`";
        assert!(error(r#"{"action":"aply"}"#).starts_with(expected));
        assert!(
            error(r#"{"action":"apply","site":"a"}"#).starts_with("unknown field `site`, expected `action` or `sites`")
        );
    }
}
