//! Publishes recovered events, explained failures and their ends, and sends alerts about them.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use lambda_support::{
    error_chain,
    metrics::MetricLog,
    topic::{Topic, TopicError},
};
use shared::{
    alerts::{
        message::AlertMessage,
        refresh_alert::{explained_alerts, recovered_alert},
        resolution_alert::end_alerts,
        selection::AlertEvents,
    },
    events::cloud_event::EventMessage,
    refreshes::{
        event_log::{JobEnd, JobEventRecord},
        explanation::{EXPLAINED, Explanation},
        health::is_failure,
        job::Refresh,
        resolution::{EndKind, FailureEnd, RESOLVED},
        state::DueJob,
    },
    registration::{claim::Registration, site_name::SiteName},
};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Level;

use crate::{
    refreshes::SiteRefreshes,
    report::{Explained, NotRecovered, Recovered, Resolved, SiteReport, note_of, resource_of},
};

/// The time that must be left to publish one more job: its events, alerts, and the state.
const PUBLISH_TIME: Duration = Duration::from_secs(40);

/// The published events of all sites, and the ends of refreshes, which have no event.
#[derive(Debug, Default)]
pub(crate) struct Published {
    recovered: Vec<(Registration, Refresh)>,
    explained: Vec<(SiteName, Explanation)>,
    ended: Vec<(SiteName, FailureEnd)>,
    /// The reason why SNS accepts no more.
    pub(crate) error: Option<String>,
}

/// Publishes events of jobs, and logs each.
pub(crate) struct EventPublisher<'a, A> {
    /// The events topic.
    pub(crate) topic: &'a A,
    /// The log.
    pub(crate) log: &'a MetricLog,
}

/// A due event of a job.
enum DueEvent {
    /// Tableau did not deliver it. It has the time of this.
    Recovered(Registration, OffsetDateTime),
    /// It explains a failure.
    Explained(Box<Explanation>),
    /// It says that failures are over.
    Resolved(Box<FailureEnd>),
}

/// Why an event was not published.
enum Unpublished {
    /// SNS refuses it in every run: it must not keep the others back.
    ForGood(String),
    /// SNS may accept it later.
    ForNow(String),
}

impl DueEvent {
    fn name(&self) -> &str {
        match self {
            Self::Recovered(registration, _) => registration.event.as_str(),
            Self::Explained(_) => EXPLAINED,
            Self::Resolved(_) => RESOLVED,
        }
    }

    /// Returns the message; `None` if SNS would not accept it.
    fn message(&self, refresh: &Refresh, site: &SiteName, site_luid: &str) -> Option<EventMessage> {
        match self {
            Self::Recovered(registration, _) => refresh.recovered_event(registration, site_luid),
            Self::Explained(explanation) => explanation.event(site, site_luid),
            Self::Resolved(end) => end.event(site, site_luid),
        }
    }
}

impl SiteRefreshes {
    /// Publishes due events while SNS accepts them and there is time, and notes each job with all of its events published.
    pub(crate) async fn publish(
        &mut self,
        site: &SiteName,
        publisher: &EventPublisher<'_, impl Topic<EventMessage>>,
        report: &mut SiteReport,
        published: &mut Published,
        deadline: Instant,
    ) {
        for job in std::mem::take(&mut self.due) {
            if !published.goes_on(deadline) {
                report.refreshes_left += 1;
                continue;
            }
            let (refresh, handled, mut refused) = (job.refresh.clone(), job.handled, Vec::new());
            for event in self.due_events(site, job) {
                let message = event.message(&refresh, site, &self.site_luid);
                let job = JobEnd { id: Some(&refresh.job_id), at: refresh.ended_at };
                match publisher.publish(site, event.name(), message, job).await {
                    Ok(()) => self.note_published(site, event, &refresh, report, published),
                    Err(Unpublished::ForGood(reason)) => {
                        refused.push(reason);
                        if let DueEvent::Resolved(end) = event {
                            self.state.failing_mut().note_ended(&end.luid, end.kind);
                        }
                    }
                    Err(Unpublished::ForNow(reason)) => {
                        published.error = Some(reason);
                        break;
                    }
                }
            }
            if published.error.is_some() {
                // The next run publishes all of its events, with the same identifiers.
                report.refreshes_left += 1;
            } else if refused.is_empty() {
                self.state.note_handled(&refresh.job_id, handled);
            } else {
                self.drop_job(&refresh.job_id, refused.join("; "), report);
            }
        }
        self.publish_ends(site, publisher, report, published, deadline).await;
    }

    /// Returns the events of a job that are due after those before it were published.
    fn due_events(&self, site: &SiteName, job: DueJob) -> Vec<DueEvent> {
        let DueJob { refresh, recover, explain, context, handled: _ } = job;
        let recovered =
            recover.into_iter().map(|(event, at)| DueEvent::Recovered(Registration { site: site.clone(), event }, at));
        let failing = self.state.failing();
        let outcome = if explain {
            Some(DueEvent::Explained(Box::new(Explanation::new(refresh, context, failing))))
        } else {
            let resolved = failing.resolved_by(&refresh).cloned();
            resolved.map(|resolved| DueEvent::Resolved(Box::new(FailureEnd::by_refresh(&refresh, resolved, context))))
        };
        recovered.chain(outcome).collect()
    }

    fn note_published(
        &mut self,
        site: &SiteName,
        event: DueEvent,
        refresh: &Refresh,
        report: &mut SiteReport,
        published: &mut Published,
    ) {
        match event {
            DueEvent::Recovered(registration, at) => {
                report.recovered.push(Recovered::of(refresh, &registration.event, at));
                published.recovered.push((registration, refresh.clone()));
            }
            DueEvent::Explained(explanation) => {
                self.state.failing_mut().note_failed(refresh, explanation.says_suspended());
                report.explained.push(Explained::of(refresh));
                published.explained.push((site.clone(), *explanation));
            }
            DueEvent::Resolved(end) => self.note_end(site.clone(), *end, report, published),
        }
    }

    /// Publishes that failures are over, where the tasks of the site showed it, and notes which refreshes have ended.
    async fn publish_ends(
        &mut self,
        site: &SiteName,
        publisher: &EventPublisher<'_, impl Topic<EventMessage>>,
        report: &mut SiteReport,
        published: &mut Published,
        deadline: Instant,
    ) {
        for end in std::mem::take(&mut self.ends) {
            // A job of this run may have shown more.
            if self.state.failing().get(&end.luid) != Some(&end.failing) {
                continue;
            }
            if end.kind == EndKind::Resolved {
                if !published.goes_on(deadline) {
                    report.refreshes_left += 1;
                    continue;
                }
                let job = JobEnd { id: end.job_id.as_deref(), at: end.at.0 };
                match publisher.publish(site, RESOLVED, end.event(site, &self.site_luid), job).await {
                    Ok(()) => {}
                    Err(Unpublished::ForNow(reason)) => {
                        published.error = Some(reason);
                        report.refreshes_left += 1;
                        continue;
                    }
                    Err(Unpublished::ForGood(reason)) => {
                        self.state.failing_mut().note_ended(&end.luid, end.kind);
                        let resource = resource_of(&end);
                        let at = Some(end.failing.last.0);
                        report.not_recovered.push(NotRecovered {
                            job: None,
                            events: BTreeSet::new(),
                            from: at,
                            until: at,
                            reason: format!("{reason} (the {resource} works again)"),
                        });
                        continue;
                    }
                }
            }
            self.note_end(site.clone(), end, report, published);
        }
    }

    fn note_end(&mut self, site: SiteName, end: FailureEnd, report: &mut SiteReport, published: &mut Published) {
        self.state.failing_mut().note_ended(&end.luid, end.kind);
        if end.kind == EndKind::Resolved {
            report.resolved.push(Resolved::of(&end));
        } else {
            report.notes.push(note_of(&end));
        }
        published.ended.push((site, end));
    }
}

impl<A: Topic<EventMessage>> EventPublisher<'_, A> {
    /// Publishes an event. `message` is `None` if SNS would not accept it.
    async fn publish(
        &self,
        site: &SiteName,
        name: &str,
        message: Option<EventMessage>,
        job: JobEnd<'_>,
    ) -> Result<(), Unpublished> {
        let message = message.ok_or_else(|| Unpublished::ForGood(format!("its {name} is larger than SNS accepts")))?;
        let record = JobEventRecord::of(site, &message, job, OffsetDateTime::now_utc());
        self.topic.publish(message).await.map_err(|error| {
            let reason = error_chain(&error);
            if error.is_for_good() {
                Unpublished::ForGood(format!("SNS refuses its {name}: {reason}"))
            } else {
                Unpublished::ForNow(format!("SNS did not accept the {name} of a job: {reason}"))
            }
        })?;
        self.log.line(Level::INFO, None, &record, &[]);
        Ok(())
    }
}

impl Published {
    /// Whether SNS accepts events, and there is time to publish one more.
    fn goes_on(&self, deadline: Instant) -> bool {
        self.error.is_none() && Instant::now() + PUBLISH_TIME < deadline
    }

    /// Sends alerts about the published events, and about refreshes that have ended.
    pub(crate) async fn alert(&self, topic: &impl Topic<AlertMessage>, wanted: &AlertEvents) -> Vec<TopicError> {
        let recovered = self.recovered.iter().filter(|(registration, _)| wanted.contains(&registration.event));
        let recovered: Vec<_> = recovered.map(|(registration, refresh)| (registration.clone(), refresh)).collect();
        let is_wanted = |(_, explanation): &&(SiteName, Explanation)| {
            explanation.refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event))
        };
        let explained: Vec<_> =
            self.explained.iter().filter(is_wanted).map(|(site, explanation)| (site, explanation)).collect();
        // An alert said of a suspended refresh that it does not run any more.
        let is_news = |end: &FailureEnd| end.kind == EndKind::Resolved || !end.failing.is_suspended;
        let is_selected = |end: &FailureEnd| end.failing.kind.failure().is_some_and(|event| wanted.contains(&event));
        let ended = self.ended.iter().filter(|(_, end)| is_news(end) && is_selected(end));
        let ended: Vec<_> = ended.map(|(site, end)| (site, end)).collect();
        let alerts = recovered_alert(&recovered).into_iter().chain(explained_alerts(&explained));
        let alerts = alerts.chain(end_alerts(&ended));
        // All are tried, even if some fail.
        join_all(alerts.map(|alert| topic.publish(alert))).await.into_iter().filter_map(Result::err).collect()
    }

    /// Returns the sites with published events.
    pub(crate) fn sites(&self) -> BTreeSet<&SiteName> {
        let recovered = self.recovered.iter().map(|(registration, _)| &registration.site);
        let explained = self.explained.iter().map(|(site, _)| site);
        recovered.chain(explained).chain(self.ended.iter().map(|(site, _)| site)).collect()
    }
}
