//! The end of a site's token: reads it, and announces it.

use lambda_support::error_chain;
use shared::{problems::ProblemKind, state::token_digest};
use tableau::Session;
use time::OffsetDateTime;

use crate::{
    request::Action,
    site_run::{CHANGE_TIME, SiteRun},
    state_table::StateTable,
};

impl<T: StateTable> SiteRun<'_, T> {
    /// Reads when the token ends, if that is due. An error harms nothing: Tableau Server has no such call, and the site entry
    /// may say it.
    pub(crate) async fn read_token_end(&mut self, session: &mut Session<'_>) {
        let (token, now) = (token_digest(self.advice.entry), self.run.now);
        let is_due = self.announces_token_end() && self.token_end.content.is_due(&token, now);
        if !is_due || !self.has_time(CHANGE_TIME) {
            return;
        }
        let listed = session.token_end().await.unwrap_or_else(|error| {
            let error = error_chain(&error);
            tracing::info!(error, "Tableau does not say when the token ends; the next run that is due asks again");
            None
        });
        self.token_end.content.note_asked(&token, listed, now);
    }

    /// Reports when the token ends. Returns when the present stage of its end began, if it is announced.
    pub(crate) fn note_token_end(&mut self) -> Option<OffsetDateTime> {
        let (entry, now) = (self.advice.entry, self.run.now);
        let errors = &mut self.report.errors;
        let refused = errors.iter_mut().find(|error| error.kind == ProblemKind::TokenRefused);
        let state = &mut self.token_end.content;
        let is_renewed = state.note_end(&token_digest(entry), entry.token_expires, self.is_signed_in, now);
        let end = state.ends()?;
        self.report.token_ends = Some(end);
        if let Some(refused) = refused {
            // It is the last stage of the announced end.
            if end.time() <= now {
                refused.what += &format!(" Its end was on {}.", end.time().date());
            }
            return None;
        }
        let began = end.stage_began(now).filter(|_| !is_renewed && self.announces_token_end())?;
        self.report.warnings.push(self.advice.on_token_ending(end, now));
        Some(began)
    }

    /// Whether the run announces the end of a token: actions without alerts do not, and it needs the state.
    fn announces_token_end(&self) -> bool {
        matches!(self.run.action, Action::Apply | Action::Rotate) && self.run.state.error.is_none()
    }
}
