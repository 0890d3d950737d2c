//! Credentials with which the forwarder calls a target.

use std::fmt;

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::{settings::SettingsReader, targets::members};

/// Credentials of a target, besides those in its address. An entry has them as an object with a `type`, such as
/// `{"type":"bearer","token":"…"}`.
pub enum Credentials {
    /// None, or only those in the address: no member `credentials`, or the type `none`.
    None,
    /// A header, such as `X-Api-Key`: `{"type":"header","name":"…","value":"…"}`.
    Header {
        /// Name of the header. It is not one that the forwarder sets.
        name: String,
        /// Its value: printable ASCII without spaces at its ends.
        value: SecretString,
    },
    /// Basic authentication (RFC 7617): `{"type":"basic","user":"…","password":"…"}`.
    Basic {
        /// The user, without a colon and control characters.
        user: String,
        /// The password, without control characters. It may be empty: some services take a key as the user.
        password: SecretString,
    },
    /// A bearer token (RFC 6750): `{"type":"bearer","token":"…"}`.
    Bearer {
        /// The token: visible ASCII.
        token: SecretString,
    },
    /// A parameter in the query of the address: `{"type":"query","name":"…","value":"…"}`.
    Query {
        /// Name of the parameter, not yet encoded.
        name: String,
        /// Its value, not yet encoded.
        value: SecretString,
    },
    /// A member of the JSON object that is sent, such as PagerDuty's `routing_key`:
    /// `{"type":"body","member":"…","value":"…"}`.
    Body {
        /// Name of the member.
        member: String,
        /// Its value, a string.
        value: SecretString,
    },
}

/// The member of an entry.
const MEMBER: &str = "credentials";

/// The types, with their members.
const TYPES: [(&str, &[&str]); 6] = [
    ("none", &["type"]),
    ("header", &["type", "name", "value"]),
    ("basic", &["type", "user", "password"]),
    ("bearer", &["type", "token"]),
    ("query", &["type", "name", "value"]),
    ("body", &["type", "member", "value"]),
];

/// Headers that the forwarder sets, or that decide where a request ends.
const RESERVED_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

impl Credentials {
    /// Returns the type, as an entry names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Header { .. } => "header",
            Self::Basic { .. } => "basic",
            Self::Bearer { .. } => "bearer",
            Self::Query { .. } => "query",
            Self::Body { .. } => "body",
        }
    }

    /// Reads the member `credentials` of an entry. The reader finds members in objects by paths, such as
    /// `credentials.token`.
    pub(crate) fn read<L: Fn(&str) -> Option<String>>(
        entry: &Map<String, Value>,
        reader: &mut SettingsReader<L>,
    ) -> Option<Self> {
        let Some(credentials) = entry.get(MEMBER) else { return Some(Self::None) };
        let Some(members) = credentials.as_object() else {
            reader.add(MEMBER, r#"is not valid: expected an object, such as {"type":"bearer","token":"…"}"#);
            return None;
        };
        let types = TYPES.map(|(name, _)| name).join(", ");
        let (kind, allowed) = reader.required("credentials.type", &format!("one of {types}"), |text| {
            TYPES.into_iter().find(|(name, _)| *name == text)
        })?;
        members::check(MEMBER, members, allowed, reader);
        match kind {
            "header" => read_header(reader),
            "basic" => read_basic(members, reader),
            "bearer" => {
                let token = reader.required("credentials.token", "a token of visible ASCII characters", token);
                Some(Self::Bearer { token: token? })
            }
            "query" => {
                let name = reader.required("credentials.name", "the name of a parameter of the query", any);
                let value = reader.required("credentials.value", "its value", secret);
                Some(Self::Query { name: name?, value: value? })
            }
            "body" => {
                let member =
                    reader.required("credentials.member", "the name of a member of the JSON that is sent", any);
                let value = reader.required("credentials.value", "its value, a string", secret);
                Some(Self::Body { member: member?, value: value? })
            }
            _ => Some(Self::None),
        }
    }
}

fn read_header<L: Fn(&str) -> Option<String>>(reader: &mut SettingsReader<L>) -> Option<Credentials> {
    let expected = "the name of a header that the forwarder does not set itself, such as X-Api-Key";
    let name = reader.required("credentials.name", expected, |text| {
        let is_reserved = RESERVED_HEADERS.iter().any(|reserved| text.eq_ignore_ascii_case(reserved));
        (text.bytes().all(is_in_header_name) && !is_reserved).then(|| text.to_owned())
    });
    let expected = "its value: printable ASCII characters without spaces at the ends";
    let value = reader.required("credentials.value", expected, |text| {
        let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        (is_printable && text.trim() == text).then(|| text.into())
    });
    Some(Credentials::Header { name: name?, value: value? })
}

fn read_basic<L: Fn(&str) -> Option<String>>(
    members: &Map<String, Value>,
    reader: &mut SettingsReader<L>,
) -> Option<Credentials> {
    let has_no_control = |text: &str| !text.chars().any(char::is_control);
    let user = reader.required("credentials.user", "a user without a colon and control characters", |text| {
        (has_no_control(text) && !text.contains(':')).then(|| text.to_owned())
    });
    // Not `required`: it may be empty.
    let password = members.get("password").and_then(Value::as_str).filter(|text| has_no_control(text));
    if password.is_none() {
        let expected = "a password without control characters, which may be empty";
        reader.add("credentials.password", format_args!("is missing or not valid: expected {expected}"));
    }
    Some(Credentials::Basic { user: user?, password: password?.into() })
}

/// Whether a byte may be in the name of a header (RFC 9110, section 5.6.2, `tchar`).
fn is_in_header_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn token(text: &str) -> Option<SecretString> {
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| text.into())
}

fn secret(text: &str) -> Option<SecretString> {
    Some(text.into())
}

fn any(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Shows the type only. A name beside a secret may be a secret that was put into the wrong member.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credentials({})", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;
    use crate::settings::SettingsError;

    fn read(credentials: Value) -> Result<Credentials, SettingsError> {
        let entry = Map::from_iter([(MEMBER.to_owned(), credentials)]);
        let mut reader = SettingsReader::new(|path: &str| members::find(&entry, path).map(str::to_owned));
        let credentials = Credentials::read(&entry, &mut reader);
        reader.finish(credentials, "it cannot be used", "")
    }

    /// Returns the type and the members of credentials.
    fn exposed(credentials: &Credentials) -> (&'static str, &str, &str) {
        let (name, value) = match credentials {
            Credentials::None => ("", ""),
            Credentials::Header { name, value } | Credentials::Query { name, value } => {
                (name.as_str(), value.expose_secret())
            }
            Credentials::Basic { user, password } => (user.as_str(), password.expose_secret()),
            Credentials::Bearer { token } => ("", token.expose_secret()),
            Credentials::Body { member, value } => (member.as_str(), value.expose_secret()),
        };
        (credentials.kind(), name, value)
    }

    #[test]
    fn each_type_has_its_members() {
        for (credentials, expected) in [
            (json!({"type": "none"}), ("none", "", "")),
            (
                json!({"type": "header", "name": "Authorization", "value": "Key k 1"}),
                ("header", "Authorization", "Key k 1"),
            ),
            (json!({"type": "basic", "user": "a@b.example", "password": "p:w ü"}), ("basic", "a@b.example", "p:w ü")),
            (json!({"type": "basic", "user": "key", "password": ""}), ("basic", "key", "")),
            (json!({"type": "bearer", "token": "a.b-c_d=="}), ("bearer", "", "a.b-c_d==")),
            (json!({"type": "query", "name": "code", "value": "ä &=#"}), ("query", "code", "ä &=#")),
            (json!({"type": "body", "member": "routing_key", "value": "R0"}), ("body", "routing_key", "R0")),
        ] {
            let read = read(credentials.clone()).unwrap_or_else(|error| panic!("{credentials}: {error}"));
            assert_eq!(exposed(&read), expected);
        }
    }

    #[test]
    fn credentials_that_a_request_could_not_carry_are_refused() {
        for credentials in [
            json!(null),
            json!("token"),
            json!({}),
            json!({"token": "t"}),
            json!({"type": "Bearer", "token": "t"}),
            json!({"type": "bearer"}),
            json!({"type": "bearer", "token": ""}),
            json!({"type": "bearer", "token": "a b"}),
            json!({"type": "bearer", "token": "a\r\nx: y"}),
            json!({"type": "bearer", "token": "ä"}),
            json!({"type": "bearer", "token": "t", "user": "u"}),
            json!({"type": "none", "token": "t"}),
            json!({"type": "header", "name": "X-Key"}),
            json!({"type": "header", "name": "", "value": "v"}),
            json!({"type": "header", "name": "X Key", "value": "v"}),
            json!({"type": "header", "name": "X-Key:", "value": "v"}),
            json!({"type": "header", "name": "Host", "value": "v"}),
            json!({"type": "header", "name": "Content-Length", "value": "1"}),
            json!({"type": "header", "name": "Webhook-Signature", "value": "v"}),
            json!({"type": "header", "name": "X-Key", "value": "a\nb"}),
            json!({"type": "header", "name": "X-Key", "value": " v"}),
            json!({"type": "header", "name": "X-Key", "value": "ä"}),
            json!({"type": "basic", "user": "a:b", "password": "p"}),
            json!({"type": "basic", "user": "a", "password": "p\n"}),
            json!({"type": "basic", "user": "a"}),
            json!({"type": "basic", "password": "p"}),
            json!({"type": "query", "name": "code"}),
            json!({"type": "body", "value": "v"}),
            json!({"type": "body", "member": "m", "value": 7}),
        ] {
            assert!(read(credentials.clone()).is_err(), "{credentials}");
        }
    }

    #[test]
    fn the_error_names_each_member_and_the_expected_value() {
        let error = read(json!({"type": "basic", "user": "s3cret:", "pasword": "s3cret"})).expect_err("not usable");
        insta::assert_snapshot!(error, @"it cannot be used: credentials has a member that is not known: allowed are type, user, password; credentials.user is not valid: expected a user without a colon and control characters; credentials.password is missing or not valid: expected a password without control characters, which may be empty.");
    }
}
