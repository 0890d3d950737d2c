//! Refresh jobs of a site: list, and read in full.

use std::collections::HashSet;

use shared::{
    refreshes::job::{EndedJob, Refresh},
    timestamp::Timestamp,
};
use time::OffsetDateTime;

use crate::{
    error::TableauError,
    paging::PageBudget,
    retry::RetryPolicy,
    session::{Request, Session},
    wire::{
        jobs::{JobPage, JobRow, Listed, REFRESH_TYPES, read_jobs, read_refresh, size_of_row},
        list::Pagination,
    },
};

/// Code of a page after the last.
const PAGE_NOT_FOUND: &str = "400006";

/// The most jobs that Tableau lists on a page.
const PAGE_SIZE: usize = 1000;

/// The refreshes that ended in a period.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RefreshJobs {
    /// The readable ones, in no order.
    pub ended: Vec<EndedJob>,
    /// The others, each with the reason.
    pub odd: Vec<OddJob>,
    /// The number of jobs of other types, which were not asked for.
    pub others: usize,
    /// The number of distinct jobs in the list.
    pub listed: usize,
    /// The number of jobs that Tableau counts, which can be larger than the list.
    pub total: usize,
}

/// A job from which no event can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddJob {
    /// Tableau's identifier.
    pub id: String,
    /// The reason.
    pub reason: String,
}

/// The refreshes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichJobs {
    /// All.
    All,
    /// The failed ones.
    Failed,
}

impl Session<'_> {
    /// Lists the extract refreshes that ended at `from` or later, and before `until`.
    ///
    /// # Errors
    ///
    /// As for every call. A partial list is an error.
    pub async fn refresh_jobs(
        &mut self,
        from: OffsetDateTime,
        until: OffsetDateTime,
        which: WhichJobs,
    ) -> Result<RefreshJobs, TableauError> {
        let filter = filter(from, until, which);
        let (mut rows, mut total, mut budget) = (Vec::new(), 0, PageBudget::new());
        loop {
            let page_number = budget.next_page();
            let query = format!("{filter}&pageSize={PAGE_SIZE}&pageNumber={page_number}");
            let request = Request { query: &query, max_bytes: budget.bytes, ..get_jobs(&["jobs"]) };
            self.job_queries += 1;
            let answer = match self.call(request).await {
                // Some servers count jobs that they do not list, and refuse the page of those.
                Err(error) if page_number > 1 && error.has_code(PAGE_NOT_FOUND) => break,
                answer => answer?,
            };
            let JobPage { rows: page, pagination } = self.read(&answer, read_jobs)?;
            budget.take(&answer, page.iter().map(size_of_row))?;
            let page_is_empty = page.is_empty();
            rows.extend(page);
            let Some(Pagination { total: counted, .. }) = pagination else { break };
            total = counted;
            if page_is_empty || rows.len() >= total {
                break;
            }
        }
        Ok(sorted(rows, total))
    }

    /// Returns the number of job queries so far, which Tableau Cloud limits.
    pub fn job_queries(&self) -> u32 {
        self.job_queries
    }

    /// Reads a refresh in full. A job that Tableau does not show, or that is ambiguous, is odd and no error.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn refresh(&mut self, job: &EndedJob) -> Result<Result<Refresh, OddJob>, TableauError> {
        let odd = |reason: String| OddJob { id: job.id.clone(), reason };
        self.job_queries += 1;
        match self.call(get_jobs(&["jobs", &job.id])).await {
            Ok(answer) => {
                let refresh = self.read(&answer, |value| Ok(read_refresh(value, job)))?;
                Ok(refresh.map_err(|reason| odd(reason.to_owned())))
            }
            // Tableau deleted the job, or does not show jobs of its kind. An error without a code is not Tableau's own,
            // and may pass.
            Err(error @ TableauError::Refused { status, .. })
                if status.is_client_error() && !error.concerns_the_site() && error.code().is_some() =>
            {
                Ok(Err(odd(format!("Tableau does not show it ({})", error.code().unwrap_or_default()))))
            }
            Err(error) => Err(error),
        }
    }
}

fn get_jobs<'a>(path: &'a [&'a str]) -> Request<'a> {
    Request { retry: RetryPolicy::JOBS, ..Request::get(path) }
}

/// Returns the filter of a list. Tableau writes times to the second.
fn filter(from: OffsetDateTime, until: OffsetDateTime, which: WhichJobs) -> String {
    let [from, until] = [from, until + time::Duration::nanoseconds(999_999_999)].map(Timestamp);
    let types = REFRESH_TYPES.join(",");
    let status = if which == WhichJobs::Failed { ",status:eq:Failed" } else { "" };
    format!("filter=jobType:in:[{types}],completedAt:gte:{from},completedAt:lt:{until}{status}")
}

/// Sorts the rows of a list. A page can repeat jobs of the page before.
fn sorted(rows: Vec<JobRow>, total: usize) -> RefreshJobs {
    let (mut jobs, mut seen) = (RefreshJobs { total, ..RefreshJobs::default() }, HashSet::new());
    for JobRow { id, job } in rows {
        if !seen.insert(id.clone()) {
            continue;
        }
        match job {
            Ok(Listed::Ended(job)) => jobs.ended.push(job),
            Ok(Listed::Running) => {}
            Ok(Listed::Other) => jobs.others += 1,
            Err(reason) => jobs.odd.push(OddJob { id, reason: reason.to_owned() }),
        }
    }
    jobs.listed = seen.len();
    jobs
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_filter_covers_the_whole_last_second() {
        let (from, until) = (datetime!(2026-05-21 10:00:00.9 +2), datetime!(2026-05-21 08:05:00.1 UTC));
        assert_eq!(
            filter(from, until, WhichJobs::Failed),
            "filter=jobType:in:[refresh_extracts,increment_extracts,refresh_extracts_via_bridge,\
             increment_extracts_via_bridge],completedAt:gte:2026-05-21T08:00:00Z,completedAt:lt:2026-05-21T08:05:01Z,\
             status:eq:Failed"
        );
    }
}
