//! Personal access tokens in Tableau's JSON.

use serde_json::Value;
use shared::sites::token_end::TokenEnd;

use crate::body::Unreadable;

/// Reads when the token of a name ends, from the list of its owner's tokens. `None` if the list does not say so.
pub(crate) fn read_token_end(answer: &Value, name: &str) -> Result<Option<TokenEnd>, Unreadable> {
    let list = &answer.as_object().ok_or("it is no JSON object")?.get("personalAccessTokens");
    let tokens = match list.unwrap_or(&Value::Null) {
        // Other lists are within an object, or are a lone object.
        Value::Object(members) => members.get("personalAccessToken").or(*list),
        list => Some(list),
    };
    let tokens = match tokens.unwrap_or(&Value::Null) {
        Value::Array(tokens) => tokens.as_slice(),
        token => std::slice::from_ref(token),
    };
    let of_name = tokens.iter().filter(|token| token["tokenName"] == name);
    // A name stands for one token. An ended one that is still listed does not hide its successor.
    Ok(of_name.filter_map(|token| TokenEnd::parse(token["expiresAt"].as_str()?)).max())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_end_of_our_token_is_read_from_every_shape_of_the_list() {
        let token = |name: &str, end: Value| json!({ "tokenName": name, "tokenGuid": "1", "expiresAt": end });
        let (ours, other) = (token("fanout", json!("2027-05-21T08:00:00Z")), token("other", json!("2026-01-01")));
        for list in [
            json!([other, ours]),
            json!([null, 17, "x", [], { "tokenName": 17 }, ours]),
            json!({ "personalAccessToken": [ours, other] }),
            json!({ "personalAccessToken": ours }),
            ours.clone(),
            json!([token("fanout", json!("2026-05-21T08:00:00Z")), ours, token("fanout", json!(null))]),
        ] {
            let answer = json!({ "personalAccessTokens": list });
            let end = read_token_end(&answer, "fanout").map(|end| end.map(|end| end.to_string()));
            assert_eq!(end, Ok(Some("2027-05-21T08:00:00Z".to_owned())), "{answer}");
        }
        for list in [
            json!([other]),
            json!([]),
            json!({}),
            json!(null),
            json!(17),
            json!([token("fanout", json!("soon"))]),
            json!([token("Fanout", json!("2027-05-21"))]),
            json!([{ "tokenName": "fanout" }]),
        ] {
            assert_eq!(read_token_end(&json!({ "personalAccessTokens": list }), "fanout"), Ok(None), "{list}");
        }
        assert_eq!(read_token_end(&json!({}), "fanout"), Ok(None));
        assert!(read_token_end(&json!([ours]), "fanout").is_err());
    }
}
