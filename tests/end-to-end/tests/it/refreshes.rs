//! Refreshes that Tableau does not tell of, and what the reconciler makes of its jobs.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, site},
    destination::Destination,
};
use reconciler::{reconciler::Failure, report::Report, request::Action};
use serde_json::{Value, json};
use shared::remembered::SETTLED;
use tableau_simulator::server::{Running, Simulator};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

pub(super) const SITE: &str = "marketing";

/// A Tableau server with one site that is as declared, and a reconciler that tells of refreshes.
struct Refreshes {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

/// A time as Tableau writes it.
pub(super) fn written(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

/// Moves every time in stored JSON into the past: so long ago it was stored.
pub(super) fn long_ago(stored: &str, passed: Duration) -> anyhow::Result<String> {
    fn shift(value: &mut Value, passed: Duration) {
        match value {
            Value::String(text) => {
                if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
                    *text = (at - passed).format(&Rfc3339).unwrap_or_default();
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| shift(value, passed)),
            Value::Object(members) => members.values_mut().for_each(|value| shift(value, passed)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut value: Value = serde_json::from_str(stored)?;
    shift(&mut value, passed);
    Ok(value.to_string())
}

/// Lets time pass: everything that is stored, and every job, is so much older.
pub(super) fn pass(tableau: &Running, declared: &Declared, sites: &[&str], time: Duration) -> anyhow::Result<()> {
    if let Some(stored) = &mut *declared.stored_refreshes()
        && let Ok(older) = long_ago(stored, time)
    {
        *stored = older;
    }
    if let Some((lease, _)) = &mut *declared.stored_lease()
        && let Ok(older) = long_ago(lease, time)
    {
        *lease = older;
    }
    for name in sites {
        site(tableau, name, |site| -> anyhow::Result<()> {
            for (item, detail) in &mut site.jobs {
                *item = serde_json::from_str(&long_ago(&item.to_string(), time)?)?;
                *detail = serde_json::from_str(&long_ago(&detail.to_string(), time)?)?;
            }
            Ok(())
        })??;
    }
    Ok(())
}

/// A job that has just ended, as Tableau's list has it and in full.
pub(super) fn job(id: &str, kind: &str, succeeded: bool, minutes: i64) -> (Value, Value) {
    let now = OffsetDateTime::now_utc();
    let (started, ended) = (written(now - Duration::minutes(minutes)), written(now));
    let status = if succeeded { "Success" } else { "Failed" };
    let item = json!({ "id": id, "status": status, "jobType": "refresh_extracts", "priority": "50",
        "createdAt": started, "startedAt": started, "endedAt": ended });
    let notes = if succeeded { "" } else { "Login failed for user 'etl'." };
    let detail = json!({ "id": id, "mode": "Asynchronous", "type": "RefreshExtract", "progress": "100",
        "createdAt": started, "startedAt": started, "completedAt": ended, "finishCode": if succeeded { "0" } else { "1" },
        "extractRefreshJob": { kind: { "id": format!("luid-of-{id}"), "name": format!("Name of {id}") }, "notes": notes } });
    (item, detail)
}

impl Refreshes {
    async fn start() -> anyhow::Result<Self> {
        let destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let mut declared = Declared::sites(&tableau, &[SITE]);
        declared.recover_hours = "24";
        declared.events = "WorkbookRefreshFailed,ViewDeleted";
        let refreshes = Self { tableau, declared, _destination: destination };
        refreshes.apply().await?;
        refreshes.pass(15)?;
        Ok(refreshes)
    }

    async fn apply(&self) -> anyhow::Result<Report> {
        site(&self.tableau, SITE, |site| site.calls.clear())?;
        match self.declared.apply().await? {
            Ok(report) | Err(Failure::Sites(report) | Failure::Alerts(report) | Failure::Refreshes(report)) => {
                Ok(report)
            }
            Err(failure) => anyhow::bail!("{failure}"),
        }
    }

    fn pass(&self, minutes: i64) -> anyhow::Result<()> {
        pass(&self.tableau, &self.declared, &[SITE], Duration::minutes(minutes))
    }

    fn fail(&self, id: &str) -> anyhow::Result<()> {
        site(&self.tableau, SITE, |site| site.jobs.push(job(id, "workbook", false, 2)))
    }

    fn disable(&self) -> anyhow::Result<()> {
        site(&self.tableau, SITE, |site| {
            site.webhooks.iter_mut().filter(|it| it.name.ends_with("Failed")).for_each(|webhook| webhook.disable(None));
        })
    }

    fn calls(&self) -> anyhow::Result<Vec<String>> {
        site(&self.tableau, SITE, |site| site.calls.clone())
    }

    /// What machines got, as event and job's resource.
    fn told(&self) -> Vec<String> {
        let told = self.declared.people.events();
        let of =
            |name: &str, event: &shared::message::EventMessage| event.attributes.get(name).cloned().unwrap_or_default();
        told.iter().map(|event| format!("{} {}", of("event_type", event), of("resource_luid", event))).collect()
    }
}

#[tokio::test]
async fn refreshes_that_fail_while_the_webhook_is_disabled_are_recovered_once_and_explained_once() -> anyhow::Result<()>
{
    let refreshes = Refreshes::start().await?;
    refreshes.disable()?;
    for id in ["j1", "j2", "j3"] {
        refreshes.fail(id)?;
    }
    refreshes.pass(10)?;
    let report = refreshes.apply().await?;
    insta::assert_snapshot!(report.text.lines().map(|line| line.split(" at 2").next().unwrap_or_default()).collect::<Vec<_>>().join("\n"), @"");
    let mut told = refreshes.told();
    told.sort();
    assert_eq!(told.len(), 6, "{told:?}");
    let events = refreshes.declared.people.events();
    assert!(events.iter().take(1).all(|event| event.attributes.get("recovered").is_some()), "{events:?}");
    println!("{:?}", refreshes.declared.people.take_subjects());
    for minutes in [0, 15, 15] {
        refreshes.pass(minutes)?;
        let report = refreshes.apply().await?;
        assert_eq!((report.sites[0].recovered.len(), report.sites[0].explained.len()), (0, 0), "{}", report.text);
    }
    assert_eq!(refreshes.told().len(), 6);
    Ok(())
}
