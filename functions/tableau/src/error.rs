//! Errors of the client, and the kinds they have.

use std::{borrow::Cow, error::Error, iter::successors};

use reqwest::StatusCode;
use url::Url;

use crate::{
    call::Call,
    version::{ApiVersion, OLDEST},
};

/// Code of a sign-in whose token is wrong, revoked, expired, or for another site.
const TOKEN_REFUSED: &str = "401001";

/// Code of a session that ended: it expired, or another sign-in with the same token replaced it.
const SESSION_ENDED: &str = "401002";

/// Code of a call that only administrators may make.
const NOT_ADMINISTRATOR: &str = "403004";

/// Code of a site that does not exist.
const SITE_NOT_FOUND: &str = "404000";

/// A call to Tableau that failed.
#[derive(Debug, thiserror::Error)]
pub enum TableauError {
    /// No answer came. Tableau may have carried out the call.
    #[error("{call} got no answer")]
    NoAnswer {
        /// The call.
        call: Box<Call>,
        /// The cause.
        source: reqwest::Error,
    },
    /// No answer came before the session's deadline. Tableau may have carried out the call.
    #[error("{call} got no answer before the deadline")]
    OutOfTime {
        /// The call.
        call: Box<Call>,
    },
    /// Tableau answered with a status of failure.
    #[error("{call} answered {status}{}: {text}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The call.
        call: Box<Call>,
        /// The HTTP status.
        status: StatusCode,
        /// Tableau's own code, if the answer is Tableau's own.
        code: Option<String>,
        /// The explanation in the answer.
        text: String,
    },
    /// The server redirects a sign-in to an address that must not receive a token.
    #[error("{call} answered {status}, a redirect to {to}")]
    Redirected {
        /// The call.
        call: Box<Call>,
        /// The HTTP status.
        status: StatusCode,
        /// The host of the redirect.
        to: String,
    },
    /// The server does not support webhooks by the name of their event.
    #[error("{server} supports version {version} of the REST API, and webhooks need {OLDEST} or newer")]
    TooOld {
        /// The server.
        server: Url,
        /// The newest version that it supports.
        version: ApiVersion,
    },
    /// The answer cannot be read completely.
    #[error("{call} answered {status}, but the answer cannot be read: {what}")]
    Unreadable {
        /// The call.
        call: Box<Call>,
        /// The HTTP status.
        status: StatusCode,
        /// The defect.
        what: Cow<'static, str>,
    },
}

/// The kinds of error: what the client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server did not answer.
    Unreachable,
    /// No trusted CA signed the server's certificate.
    CertificateNotTrusted,
    /// The deadline came before the answer.
    OutOfTime,
    /// The server redirects sign-ins away from Tableau.
    SignInRedirected,
    /// The server's REST API is too old.
    ServerTooOld,
    /// Tableau refused the token.
    TokenRefused,
    /// Another sign-in with the same token ended the session.
    SessionEnded,
    /// The site does not exist.
    SiteNotFound,
    /// The token's owner is not an administrator.
    NotAdministrator,
    /// Tableau limits requests (429).
    RateLimited,
    /// Tableau answered with any other error.
    Failed,
    /// The answer cannot be read.
    Unreadable,
}

impl TableauError {
    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAnswer { source, .. } if is_about_certificate(source) => ErrorKind::CertificateNotTrusted,
            Self::NoAnswer { .. } => ErrorKind::Unreachable,
            Self::OutOfTime { .. } => ErrorKind::OutOfTime,
            Self::Redirected { .. } => ErrorKind::SignInRedirected,
            Self::TooOld { .. } => ErrorKind::ServerTooOld,
            Self::Unreadable { .. } => ErrorKind::Unreadable,
            Self::Refused { call, status, code, .. } => match (code.as_deref(), *status) {
                (Some(TOKEN_REFUSED), _) => ErrorKind::TokenRefused,
                (Some(SESSION_ENDED), _) => ErrorKind::SessionEnded,
                (Some(NOT_ADMINISTRATOR), _) => ErrorKind::NotAdministrator,
                (Some(SITE_NOT_FOUND), _) => ErrorKind::SiteNotFound,
                (_, StatusCode::TOO_MANY_REQUESTS) => ErrorKind::RateLimited,
                // Without a known code.
                (_, StatusCode::UNAUTHORIZED) if call.is_sign_in() => ErrorKind::TokenRefused,
                (_, StatusCode::UNAUTHORIZED) => ErrorKind::SessionEnded,
                _ => ErrorKind::Failed,
            },
        }
    }

    /// Returns Tableau's own code, if it refused with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// Leaves out the explanation, which may name a user.
    pub(crate) fn without_text(self) -> Self {
        match self {
            Self::Refused { call, status, code, text: _ } => {
                Self::Refused { call, status, code, text: "no explanation".to_owned() }
            }
            error => error,
        }
    }

    pub(crate) fn has_code(&self, wanted: &str) -> bool {
        self.code() == Some(wanted)
    }

    /// Whether it concerns this one call alone, so that others may still succeed.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.is_client_error()
                    && ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS]
                        .contains(status)
            }
            _ => false,
        }
    }

    /// Whether Tableau says that it does not have this one. An answer without a code is not Tableau's own, and may pass.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { status, code: Some(code), .. } => {
                *status == StatusCode::NOT_FOUND && code != SITE_NOT_FOUND
            }
            _ => false,
        }
    }

    /// Whether it concerns the session or the site, so that every other call fails alike.
    pub fn concerns_the_site(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(status)
                    || self.has_code(SITE_NOT_FOUND)
            }
            Self::OutOfTime { .. } | Self::Redirected { .. } | Self::TooOld { .. } => true,
            Self::NoAnswer { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// Whether Tableau may have carried out the call.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::OutOfTime { .. } | Self::Unreadable { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Redirected { .. } | Self::TooOld { .. } => false,
        }
    }

    /// Whether the session ended. Once there is one, a 401 has no other reason, whatever its code.
    pub(crate) fn is_session_ended(&self) -> bool {
        match self {
            Self::Refused { status, call, .. } => {
                self.has_code(SESSION_ENDED) || (*status == StatusCode::UNAUTHORIZED && !call.is_sign_in())
            }
            _ => false,
        }
    }
}

fn is_about_certificate(error: &reqwest::Error) -> bool {
    let mut causes = successors(Some(error as &dyn Error), |error| (*error).source());
    causes.any(|cause| cause.to_string().contains("certificate"))
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use shared::redaction::known_secrets::KnownSecrets;

    use super::*;
    use crate::retry::RetryPolicy;

    fn refused(path: &str, status: u16, code: &str) -> TableauError {
        let url = format!("https://tableau.example/api/3.27/{path}").parse().expect("an address");
        TableauError::Refused {
            call: Box::new(Call::new(Method::POST, url, RetryPolicy::REPEATABLE, &KnownSecrets::default())),
            status: StatusCode::from_u16(status).expect("a status"),
            code: Some(code.to_owned()).filter(|code| !code.is_empty()),
            text: "Signin Error".to_owned(),
        }
    }

    #[test]
    fn a_refusal_has_its_kind_by_code_and_without_one_by_status() {
        for (path, status, code, kind) in [
            ("auth/signin", 401, "401001", ErrorKind::TokenRefused),
            ("auth/signin", 401, "", ErrorKind::TokenRefused),
            ("sites/1/webhooks", 401, "401002", ErrorKind::SessionEnded),
            ("sites/1/webhooks", 401, "", ErrorKind::SessionEnded),
            ("sites/1/webhooks", 403, "403004", ErrorKind::NotAdministrator),
            ("sites/1/webhooks", 403, "", ErrorKind::Failed),
            ("sites/1/webhooks", 404, "404000", ErrorKind::SiteNotFound),
            ("sites/1/webhooks", 429, "429000", ErrorKind::RateLimited),
            ("sites/1/webhooks", 500, "500000", ErrorKind::Failed),
        ] {
            assert_eq!(refused(path, status, code).kind(), kind, "{path} {status} {code}");
        }
    }

    #[test]
    fn an_explanation_that_may_name_a_user_is_left_out() {
        let shown = refused("sites/1/users/1", 403, "403004").without_text().to_string();
        assert!(shown.ends_with("answered 403 Forbidden (403004): no explanation"), "{shown}");
    }

    #[test]
    fn an_error_shows_the_call_the_status_and_the_code() {
        let shown = refused("auth/signin", 401, "401001").to_string();
        assert_eq!(
            shown,
            "POST https://tableau.example/api/3.27/auth/signin answered 401 Unauthorized (401001): Signin Error"
        );
    }
}
