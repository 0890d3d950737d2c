//! The end of a session's own token.

use shared::sites::token_end::TokenEnd;

use crate::{
    error::TableauError,
    retry::RetryPolicy,
    session::{Request, Session},
    wire::tokens::read_token_end,
};

impl Session<'_> {
    /// Reads when the session's personal access token ends. `None` if Tableau does not say so. Only Tableau Cloud has the call.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn token_end(&mut self) -> Result<Option<TokenEnd>, TableauError> {
        let Some(user) = self.user_id().map(str::to_owned) else { return Ok(None) };
        let path = ["users", user.as_str(), "personal-access-tokens"];
        let answer = self.call(Request { retry: RetryPolicy::JOBS, ..Request::get(&path) }).await?;
        let name = self.token_name();
        self.read(&answer, |value| read_token_end(value, name))
    }
}
