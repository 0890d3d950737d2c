//! The input of an invocation.

use serde::{Deserialize, Serialize};

/// The input of an invocation. An unknown field or action is an error, since a misspelt one would go unnoticed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The action.
    pub action: Action,
    /// The sites, by our names for them; all sites if none are named.
    #[serde(default)]
    pub sites: Option<Vec<String>>,
}

/// The action of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Reports the changes that [`Action::Apply`] would make, and makes none.
    Plan,
    /// Brings every site's webhooks to the declared ones.
    #[default]
    Apply,
    /// Has Tableau test every webhook of ours.
    Test,
    /// Adds a new signing key and moves every webhook to it. It is always for all sites, since they share the keys.
    Rotate,
    /// Deletes our webhooks, and no others.
    Destroy,
    /// Explains the failed refreshes in the queue. Looks at no webhook.
    Explain,
}

impl Action {
    /// Returns who completes a run that is cut short: the `next` run on the schedule, or the caller of an action that is
    /// not scheduled.
    pub(crate) fn or_again(self, next: &str) -> String {
        match self {
            Self::Apply | Self::Rotate | Self::Explain => next.to_owned(),
            Self::Plan | Self::Test | Self::Destroy => "Run this again".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_action_or_field_is_refused_with_the_known_ones() {
        let error = |text| serde_json::from_str::<Request>(text).expect_err(text).to_string();
        assert!(error("{}").starts_with("missing field `action`"));
        let expected =
            "unknown variant `aply`, expected one of `plan`, `apply`, `test`, `rotate`, `destroy`, `explain`";
        assert!(error(r#"{"action":"aply"}"#).starts_with(expected));
        assert!(
            error(r#"{"action":"apply","site":"a"}"#).starts_with("unknown field `site`, expected `action` or `sites`")
        );
    }
}
