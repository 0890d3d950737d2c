//! Sign-in: negotiates the version of the REST API, and exchanges a personal access token for a session's credentials.

use reqwest::Method;
use secrecy::ExposeSecret;
use shared::{
    redaction::known_secrets::KnownSecrets,
    sites::{entry::SiteEntry, sign_in},
};
use tokio::time::Instant;
use url::Url;

use crate::{
    answer::Answer,
    body::SINGLE,
    call::{Call, address},
    error::TableauError,
    http::{Http, Limits, Received},
    retry::RetryPolicy,
    version::{ApiVersion, OLDEST, SERVER_INFO},
    wire::session::{self, Credentials},
};

/// The most redirects of a sign-in between the pods of Tableau Cloud. More are a loop.
const MAX_REDIRECTS: usize = 3;

/// Returns the newest version that a server supports; `None` if its answer does not name it.
pub(crate) async fn server_version(
    http: &Http,
    server: &Url,
    secrets: &mut KnownSecrets,
    deadline: Instant,
) -> Result<Option<ApiVersion>, TableauError> {
    let url = address(server, SERVER_INFO, &["serverinfo"]);
    let call = Call::new(Method::GET, url, RetryPolicy::REPEATABLE, secrets);
    let version = match http.exchange(&call, None, None, Limits { deadline, max_bytes: SINGLE, wanted: None }).await {
        Ok(Received { status, body, .. }) => {
            Answer::checked(call, status, body, secrets).and_then(|answer| answer.read(secrets, session::read_version))
        }
        Err(error @ TableauError::Unreadable { .. }) => Err(error),
        Err(error) => return Err(error),
    };
    match version {
        Ok(version) if version < OLDEST => Err(TableauError::TooOld { server: server.clone(), version }),
        Ok(version) => Ok(Some(version)),
        Err(error) => {
            tracing::info!(%error, "a server does not name the versions it supports");
            Ok(None)
        }
    }
}

/// Signs in. Returns the address of the site's server, which on Tableau Cloud can be another pod, and the credentials.
pub(crate) async fn sign_in(
    http: &Http,
    entry: &SiteEntry,
    version: ApiVersion,
    secrets: &mut KnownSecrets,
    deadline: Instant,
) -> Result<(Url, Credentials), TableauError> {
    let body = session::sign_in(&entry.token_name, entry.token_secret.expose_secret(), &entry.content_url);
    let url = address(&entry.server, version, &["auth", "signin"]);
    let mut call = Call::new(Method::POST, url, RetryPolicy::REPEATABLE, secrets);
    let mut redirects = 0;
    loop {
        let Received { status, location, body: text, .. } =
            http.exchange(&call, None, Some(&body), Limits { deadline, max_bytes: SINGLE, wanted: None }).await?;
        // Tableau Cloud redirects a sign-in to the site's pod. An automatic redirect would turn the POST into a GET.
        if let Some(location) = location.filter(|_| status.is_redirection() && redirects < MAX_REDIRECTS) {
            let url = sign_in::redirected(&entry.server, &call.url, &location).map_err(|target| {
                let to = secrets.redacted(&target.to_string()).into_owned();
                TableauError::Redirected { call: Box::new(call.clone()), status, to }
            })?;
            call = Call::redirected(url, secrets);
            redirects += 1;
            continue;
        }
        let server = root_of(&call.url);
        let answer = Answer::checked(call, status, text, secrets)?;
        return Ok((server, answer.read(secrets, session::read_credentials)?));
    }
}

/// Returns the server that answered a sign-in at this address, with the path before `/api/`.
fn root_of(sign_in: &Url) -> Url {
    let mut server = sign_in.clone();
    server.set_query(None);
    let prefix = sign_in.path().rsplit_once("/api/").map_or("", |(prefix, _)| prefix);
    server.set_path(&format!("{prefix}/"));
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_session_keep_the_path_before_the_api() {
        for (sign_in, server, webhooks) in [
            ("https://t.example/api/3.27/auth/signin", "https://t.example/", "https://t.example/api/3.27/webhooks"),
            (
                "https://t.example/a/api/3.27/auth/signin?b=c",
                "https://t.example/a/",
                "https://t.example/a/api/3.27/webhooks",
            ),
        ] {
            let root = root_of(&sign_in.parse().expect("an address"));
            assert_eq!(root.as_str(), server);
            assert_eq!(address(&root, ApiVersion(3, 27), &["webhooks"]).as_str(), webhooks);
        }
    }
}
