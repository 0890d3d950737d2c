//! A server that quotes secrets it was sent, in any place of an answer and in several spellings.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    model::Site,
    refusal::Refusal,
    rest::{Call, Reply},
};

/// A secret that a site quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// Which secret.
    pub secret: EchoedSecret,
    /// Where it is quoted.
    pub place: EchoPlace,
    /// How it is spelled.
    pub spelling: Spelling,
}

/// A secret that a server is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EchoedSecret {
    /// The secret of a personal access token.
    Token,
    /// The token of a session, which the server issued.
    Session,
    /// The address of a webhook.
    Address,
}

/// Where a server quotes a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EchoPlace {
    /// The error of a sign-in.
    SignIn,
    /// The HTML page that answers a sign-in.
    SignInPage,
    /// The host that a sign-in is redirected to.
    Redirect,
    /// The site's identifier, which is part of every URL of the site.
    SiteId,
    /// The error of a list of webhooks.
    List,
    /// The HTML page that answers a list of webhooks.
    ListPage,
    /// The error of each change.
    Change,
    /// The error of each test.
    Test,
    /// The name of another administrator's webhook, and that of an unreadable one.
    WebhookName,
    /// The identifier of a webhook without a name.
    WebhookId,
    /// The reason and the time of a webhook's disabling.
    Reason,
    /// The error of a list of jobs.
    Jobs,
    /// The HTML page that answers a call for a job.
    JobPage,
    /// The name of the refreshed resource.
    ResourceName,
    /// The notes of each job.
    Notes,
    /// The name and the project of each workbook and data source, and the names of each user.
    Content,
    /// The error of a sign-out.
    SignOut,
}

/// How a secret is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// As it was sent.
    Same,
    /// Of an address, the path alone.
    Path,
    /// Slashes as `\/`.
    EscapedSlashes,
    /// All but letters and digits percent-encoded.
    Percent,
    /// The same with lowercase hexadecimal digits.
    PercentSmall,
    /// Percent-encoded twice.
    PercentTwice,
    /// Every character percent-encoded.
    PercentAll,
    /// All but letters and digits as `\u002d`.
    Unicode,
    /// All but letters and digits as `&#45;`.
    Entities,
    /// All but letters and digits as `&#x2D;`.
    HexEntities,
    /// Of an address, with the default port.
    Port,
    /// Of an address, with its host in upper case.
    UpperHost,
    /// Without its beginning.
    CutStart,
    /// Without its end.
    CutEnd,
    /// On two lines.
    TwoLines,
    /// As in a form: a plus sign is a space.
    Form,
    /// All in upper case.
    Upper,
}

impl Spelling {
    /// Spells a secret, or a piece of one.
    pub fn spell(self, secret: &str) -> String {
        let each = |spell: &dyn Fn(u8) -> String| {
            let spelling = |byte: u8| {
                if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { spell(byte) }
            };
            secret.bytes().map(spelling).collect()
        };
        let host = || secret.strip_prefix("https://")?.split_once('/');
        match self {
            Self::Same => secret.to_owned(),
            Self::Path => host().map_or_else(|| secret.to_owned(), |(_, path)| format!("/{path}")),
            Self::EscapedSlashes => secret.replace('/', "\\/"),
            Self::Percent => each(&|byte| format!("%{byte:02X}")),
            Self::PercentSmall => each(&|byte| format!("%{byte:02x}")),
            Self::PercentTwice => each(&|byte| format!("%25{byte:02X}")),
            Self::PercentAll => secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            Self::Unicode => each(&|byte| format!("\\u{byte:04x}")),
            Self::Entities => each(&|byte| format!("&#{byte};")),
            Self::HexEntities => each(&|byte| format!("&#x{byte:X};")),
            Self::Port => host().map_or_else(|| secret.to_owned(), |(host, path)| format!("https://{host}:443/{path}")),
            Self::UpperHost => host().map_or_else(
                || secret.to_owned(),
                |(host, path)| format!("https://{}/{path}", host.to_ascii_uppercase()),
            ),
            // Of an address, enough to cut the start of its secret.
            Self::CutStart => secret[host().map_or(5, |_| secret.len() - 30).min(secret.len())..].to_owned(),
            Self::CutEnd => secret[..secret.len().saturating_sub(12)].to_owned(),
            Self::TwoLines => {
                let (line, next) = secret.split_at(secret.len().saturating_sub(20));
                if line.is_empty() { next.to_owned() } else { format!("{line}\n  {next}") }
            }
            Self::Form => secret.replace('+', " "),
            Self::Upper => secret.to_ascii_uppercase(),
        }
    }
}

/// Adds the secret that a site quotes to the answer to a call.
pub(crate) fn add_echo(
    site: &Site,
    call: &Call,
    segments: &[&str],
    result: Result<Reply, Refusal>,
) -> Result<Reply, Refusal> {
    let Some(Echo { secret, place, spelling }) = site.oddities.echo else { return result };
    let (token, is_sign_in) = (site.tokens.first(), segments == ["auth", "signin"]);
    let secret = match secret {
        EchoedSecret::Token => token.map(|token| token.secret.as_str()),
        // At a sign-in, the previous one: the client does not know the new one.
        EchoedSecret::Session if is_sign_in => site.sessions.iter().rev().nth(1).map(String::as_str),
        EchoedSecret::Session => token.and_then(|token| token.session.as_deref()),
        EchoedSecret::Address => site.webhooks.first().map(|webhook| webhook.url.as_str()),
    };
    let Some(secret) = secret else { return result };
    let spelled = spelling.spell(secret);
    let refusal = || Refusal::new(400, 400_000, "Bad Request", "").with_detail(format!("Not taken: {spelled}, alas."));
    let of_site = segments.get(2..).unwrap_or_default();
    match (place, call.method.as_str(), of_site) {
        (EchoPlace::SignIn, ..) if is_sign_in => Err(refusal()),
        (EchoPlace::SignInPage, ..) if is_sign_in => Err(refusal().in_html()),
        (EchoPlace::Redirect, ..) if is_sign_in => {
            let is_of_host = |character: &char| character.is_ascii_alphanumeric() || "-_%".contains(*character);
            let last = secret.rsplit('/').next().unwrap_or_default();
            // A spelling that no host name can have is left out.
            let spelled = Some(spelling.spell(last)).filter(|spelled| spelled.chars().all(|it| is_of_host(&it)));
            let host = spelled.unwrap_or_else(|| last.chars().filter(is_of_host).collect());
            Ok(Reply::Moved(format!("https://{host}.example/login")))
        }
        (EchoPlace::SiteId, ..) if is_sign_in => change(result, |answer| {
            answer["credentials"]["site"]["id"] = json!(spelled);
        }),
        (EchoPlace::SignOut, ..) if segments == ["auth", "signout"] => Err(refusal()),
        (EchoPlace::List, "GET", ["webhooks"]) | (EchoPlace::Jobs, "GET", ["jobs"]) => Err(refusal()),
        (EchoPlace::ListPage, "GET", ["webhooks"]) => Err(refusal().in_html()),
        (EchoPlace::Change, "POST" | "PUT" | "DELETE", ["webhooks", ..])
        | (EchoPlace::Test, "GET", ["webhooks", _, "test"]) => Err(refusal()),
        (EchoPlace::JobPage, "GET", ["jobs", _]) => Err(refusal().in_html()),
        _ => add_to_answer(place, call, of_site, &spelled, result),
    }
}

/// Adds a spelled secret to an answer that succeeded.
fn add_to_answer(
    place: EchoPlace,
    call: &Call,
    of_site: &[&str],
    spelled: &str,
    result: Result<Reply, Refusal>,
) -> Result<Reply, Refusal> {
    match (place, call.method.as_str(), of_site) {
        (EchoPlace::WebhookName, "GET", ["webhooks"]) => change(result, |answer| {
            add_webhook(answer, json!({ "id": "1", "name": format!("It is {spelled}."), "isEnabled": true }));
            add_webhook(answer, json!({ "id": "2", "name": spelled, "isEnabled": "perhaps" }));
        }),
        (EchoPlace::WebhookId, "GET", ["webhooks"]) => {
            change(result, |answer| add_webhook(answer, json!({ "id": spelled, "isEnabled": true })))
        }
        (EchoPlace::Reason, "GET", ["webhooks"]) => change(result, |answer| {
            let webhooks = answer["webhooks"]["webhook"].as_array_mut().into_iter().flatten();
            for webhook in webhooks.take(1) {
                webhook["isEnabled"] = json!(false);
                webhook["statusChangeReason"] = json!(format!("Four times: {spelled}, alas."));
                webhook["updatedAt"] = json!(spelled);
            }
        }),
        (EchoPlace::ResourceName, "GET", ["jobs", _]) => change(result, |answer| {
            answer["job"]["extractRefreshJob"]["workbook"]["name"] = json!(format!("Sales {spelled}"));
        }),
        (EchoPlace::Content, "GET", ["workbooks" | "datasources" | "users", _]) => change(result, |answer| {
            for content in answer.as_object_mut().into_iter().flat_map(|answer| answer.values_mut()) {
                for member in ["name", "fullName"] {
                    content[member] = json!(format!("Sales {spelled}"));
                }
                content["project"] = json!({ "id": "1", "name": format!("Finance {spelled}") });
            }
        }),
        (EchoPlace::Notes, "GET", ["jobs", _]) => change(result, |answer| {
            answer["job"]["extractRefreshJob"]["notes"] = json!(format!("It failed at {spelled}, alas."));
        }),
        _ => result,
    }
}

fn change(result: Result<Reply, Refusal>, edit: impl FnOnce(&mut Value)) -> Result<Reply, Refusal> {
    result.map(|reply| match reply {
        Reply::Body(status, mut answer) => {
            edit(&mut answer);
            Reply::Body(status, answer)
        }
        reply => reply,
    })
}

fn add_webhook(answer: &mut Value, webhook: Value) {
    if let Some(webhooks) = answer["webhooks"]["webhook"].as_array_mut() {
        webhooks.push(webhook);
    }
}
