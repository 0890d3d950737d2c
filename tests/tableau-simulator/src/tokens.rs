//! The REST API of personal access tokens: when those of a user end. Only Tableau Cloud has it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::{
    model::{AccessToken, Site},
    refusal::{NO_SUCH_PATH, Refusal},
    rest::Reply,
};

/// The answer to a call for a user's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenList {
    /// As documented for Tableau Cloud.
    #[default]
    Usual,
    /// 404, as of a Tableau Server.
    NotThere,
    /// 403.
    Forbidden,
    /// 500.
    ServerError,
    /// An HTML page with 200.
    Page,
    /// No token.
    Empty,
    /// `null` in place of the list.
    Null,
    /// The tokens of the user, but for the one of this session.
    WithoutOurs,
    /// The tokens without `expiresAt`.
    WithoutExpiry,
    /// The tokens with an `expiresAt` that is no time.
    OddExpiry,
    /// Rows of any JSON before the tokens.
    OddRows,
    /// A single token that is no list.
    LoneObject,
    /// The list within an object, as other lists are.
    Nested,
}

const NO_SUCH_USER: Refusal = Refusal::new(404, 404_002, "Resource Not Found", "The user could not be found.");
const FORBIDDEN: Refusal = Refusal::new(403, 403_004, "Forbidden", "The tokens of this user may not be read.");
const INTERNAL: Refusal = Refusal::new(500, 500_000, "Internal Server Error", "The tokens could not be read.");

impl AccessToken {
    /// Whether it has ended by a clock.
    pub(crate) fn has_ended(&self, now: OffsetDateTime) -> bool {
        self.ends_at.is_some_and(|ends_at| ends_at <= now)
    }
}

/// Lists the tokens of a user. `session` is the one of the caller.
pub(crate) fn list(site: &Site, user: &str, session: Option<&str>) -> Result<Reply, Refusal> {
    let shape = site.oddities.token_list;
    match shape {
        TokenList::NotThere => return Err(NO_SUCH_PATH),
        TokenList::Forbidden => return Err(FORBIDDEN),
        TokenList::ServerError => return Err(INTERNAL),
        TokenList::Page => return Ok(Reply::Page),
        _ if user != site.owner_id => return Err(NO_SUCH_USER),
        _ => {}
    }
    let is_listed = |token: &&AccessToken| match shape {
        TokenList::Empty => false,
        TokenList::WithoutOurs => session.is_none() || token.session.as_deref() != session,
        _ => true,
    };
    let mut tokens: Vec<_> = site.tokens.iter().filter(is_listed).map(|token| write(token, shape)).collect();
    let list = match shape {
        TokenList::Null => Value::Null,
        TokenList::OddRows => {
            let mut rows = vec![Value::Null, json!(17), json!({ "tokenName": 17 }), json!({ "tokenName": null })];
            rows.append(&mut tokens);
            rows.into()
        }
        TokenList::LoneObject if tokens.len() == 1 => tokens.remove(0),
        TokenList::Nested => json!({ "personalAccessToken": tokens }),
        _ => tokens.into(),
    };
    Ok(Reply::Body(200, json!({ "personalAccessTokens": list })))
}

fn write(token: &AccessToken, shape: TokenList) -> Value {
    let AccessToken { name, guid, ends_at, last_used_at, .. } = token;
    let mut written = json!({ "tokenName": name, "tokenGuid": guid });
    let mut add = |member: &str, at: &Option<OffsetDateTime>| {
        if let Some(at) = at.map(|at| at.to_offset(UtcOffset::UTC)) {
            written[member] = at.truncate_to_second().format(&Rfc3339).unwrap_or_default().into();
        }
    };
    add("lastUsedAt", last_used_at);
    if shape != TokenList::WithoutExpiry {
        add("expiresAt", ends_at);
    }
    if shape == TokenList::OddExpiry {
        written["expiresAt"] = "in a while".into();
    }
    written
}
