//! Publishes recovered events and explained failures, and sends alerts about them.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use lambda_support::{
    error_chain,
    topic::{Topic, TopicError},
};
use shared::{
    alerts::{
        message::AlertMessage,
        refresh_alert::{explained_alerts, recovered_alert},
        selection::AlertEvents,
    },
    events::cloud_event::EventMessage,
    refreshes::{
        health::is_failure,
        job::{EXPLAINED, Refresh},
        state::DueJob,
    },
    registration::{claim::Registration, site_name::SiteName},
};
use tokio::time::Instant;

use crate::{
    refreshes::SiteRefreshes,
    report::{Explained, Recovered, SiteReport},
};

/// The time that must be left to publish one more job: its events, alerts, and the state.
const PUBLISH_TIME: Duration = Duration::from_secs(40);

/// The published events of all sites.
#[derive(Debug, Default)]
pub(crate) struct Published {
    recovered: Vec<(Registration, Refresh)>,
    explained: Vec<(SiteName, Refresh)>,
    /// The reason why SNS accepts no more.
    pub(crate) error: Option<String>,
}

impl SiteRefreshes {
    /// Publishes due events while SNS accepts them and there is time, and notes each job with all of its events published.
    pub(crate) async fn publish(
        &mut self,
        topic: &impl Topic<EventMessage>,
        report: &mut SiteReport,
        published: &mut Published,
        deadline: Instant,
    ) {
        let Ok(site) = report.site.parse::<SiteName>() else { return };
        for DueJob { refresh, recover, explain, handled } in std::mem::take(&mut self.due) {
            if published.error.is_some() || Instant::now() + PUBLISH_TIME >= deadline {
                report.refreshes_left += 1;
                continue;
            }
            let mut refused = Vec::new();
            let explanation = explain.then(|| (EXPLAINED, None, refresh.explained_event(&site, &self.site_luid)));
            let recovered = recover.iter().map(|(event, at)| {
                let registration = Registration { site: site.clone(), event: event.clone() };
                let message = refresh.recovered_event(&registration, &self.site_luid);
                (event.as_str(), Some((registration, *at)), message)
            });
            for (name, recovered, message) in recovered.chain(explanation) {
                let result = match message {
                    Some(message) => topic.publish(message).await,
                    None => {
                        refused.push(format!("its {name} is larger than SNS accepts"));
                        continue;
                    }
                };
                match (result, recovered) {
                    (Ok(()), Some((registration, at))) => {
                        report.recovered.push(Recovered::of(&refresh, &registration.event, at));
                        published.recovered.push((registration, refresh.clone()));
                    }
                    (Ok(()), None) => {
                        report.explained.push(Explained::of(&refresh));
                        published.explained.push((site.clone(), refresh.clone()));
                    }
                    // SNS refuses it in every run: it must not keep the others back.
                    (Err(error), _) if error.is_for_good() => {
                        refused.push(format!("SNS refuses its {name}: {}", error_chain(&error)));
                    }
                    (Err(error), _) => {
                        let error = error_chain(&error);
                        published.error = Some(format!("SNS did not accept the {name} of a job: {error}"));
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
    }
}

impl Published {
    /// Sends alerts about the published events.
    pub(crate) async fn alert(&self, topic: &impl Topic<AlertMessage>, wanted: &AlertEvents) -> Vec<TopicError> {
        let recovered = self.recovered.iter().filter(|(registration, _)| wanted.contains(&registration.event));
        let recovered: Vec<_> = recovered.map(|(registration, refresh)| (registration.clone(), refresh)).collect();
        let is_wanted = |(_, refresh): &&(SiteName, Refresh)| {
            refresh.events().any(|(event, _)| is_failure(&event) && wanted.contains(&event))
        };
        let explained: Vec<_> =
            self.explained.iter().filter(is_wanted).map(|(site, refresh)| (site, refresh)).collect();
        let alerts = recovered_alert(&recovered).into_iter().chain(explained_alerts(&explained));
        // All are tried, even if some fail.
        join_all(alerts.map(|alert| topic.publish(alert))).await.into_iter().filter_map(Result::err).collect()
    }

    /// Returns the sites with published events.
    pub(crate) fn sites(&self) -> BTreeSet<&SiteName> {
        let recovered = self.recovered.iter().map(|(registration, _)| &registration.site);
        recovered.chain(self.explained.iter().map(|(site, _)| site)).collect()
    }
}
