//! Sign-in and server version in Tableau's JSON.

use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::{body::Unreadable, version::ApiVersion};

/// The credentials of a session.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) site_id: String,
    /// The identifier of the token's owner, if the answer names it.
    pub(crate) user_id: Option<String>,
    /// The session's token as a header, marked sensitive: Debug output hides it.
    pub(crate) token: HeaderValue,
}

/// Writes the body of a sign-in.
pub(crate) fn sign_in(token_name: &str, token_secret: &str, content_url: &str) -> Value {
    json!({ "credentials": {
        "personalAccessTokenName": token_name,
        "personalAccessTokenSecret": token_secret,
        "site": { "contentUrl": content_url },
    } })
}

/// Reads the answer to a sign-in.
pub(crate) fn read_credentials(answer: &Value) -> Result<Credentials, Unreadable> {
    let credentials = &answer["credentials"];
    let site_id = credentials["site"]["id"].as_str().ok_or("it names no site id")?.to_owned();
    let user_id = credentials["user"]["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let token = credentials["token"].as_str().ok_or("it holds no session token")?;
    let token = HeaderValue::from_str(token).ok().filter(|token| token.to_str().is_ok());
    let mut token = token.ok_or("its session token cannot be a header")?;
    token.set_sensitive(true);
    Ok(Credentials { site_id, user_id, token })
}

/// Reads the newest version of the API that a server supports.
pub(crate) fn read_version(answer: &Value) -> Result<ApiVersion, Unreadable> {
    let version = answer["serverInfo"]["restApiVersion"].as_str().and_then(|version| version.split_once('.'));
    let numbers = version.and_then(|(major, minor)| Some(ApiVersion(major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or("it names no version of the REST API")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text: &str| read_version(&json!({ "serverInfo": { "restApiVersion": text } })).ok();
        assert!(version("3.10") > version("3.9") && version("4.0") > version("3.27"));
        assert_eq!((version("3"), version("3.x"), read_version(&Value::Null).ok()), (None, None, None));
    }
}
