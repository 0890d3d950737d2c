//! Every problem of a site in the report, the alerts and the log, without a secret in any.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, secret_of, site},
    destination::Destination,
};
use lambda_runtime::Diagnostic;
use reconciler::{failure::Failure, request::Action};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::{alerts::message::AlertMessage, registration::keyring::Keyring};
use tableau_simulator::{
    model::Oddities,
    server::{Running, Simulator},
};
use tls::Authority;
use tracing::{level_filters::LevelFilter, subscriber::NoSubscriber};

/// All log lines of this thread, at every level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Takes the lines logged since the last call.
    pub(crate) fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The sites, each named after its problem.
const SITES: [&str; 12] = [
    "certificate",
    "deleted",
    "disabled",
    "event-refused",
    "failing",
    "impatient",
    "no-administrator",
    "sent-elsewhere",
    "shared-token",
    "too-old",
    "wrong-token",
    "unreachable",
];

/// Causes each site's problem.
fn cause_problems(tableau: &Running, old: &Running, declared: &mut Declared, untrusted: &str) -> anyhow::Result<()> {
    for (name, oddities) in [
        ("deleted", Oddities { is_deleted: true, ..Oddities::default() }),
        ("event-refused", Oddities { refuses_site_events: true, ..Oddities::default() }),
        ("failing", Oddities { server_errors: 9, html_errors: true, ..Oddities::default() }),
        ("impatient", Oddities { too_many_requests: 9, ..Oddities::default() }),
        (
            "sent-elsewhere",
            Oddities {
                sign_in_moved_to: Some("https://sso.example/login?SAMLRequest=secret-request".to_owned()),
                ..Oddities::default()
            },
        ),
        ("shared-token", Oddities { token_is_shared: true, ..Oddities::default() }),
    ] {
        site(tableau, name, |site| site.oddities = oddities)?;
    }
    site(tableau, "no-administrator", |site| site.tokens[0].is_administrator = false)?;
    // Tableau quotes the URL that failed.
    site(tableau, "disabled", |site| {
        let webhook = &mut site.webhooks[0];
        webhook.is_enabled = false;
        webhook.status_change_reason = Some(format!("POST {} failed 4 times.", webhook.url));
    })?;
    declared.set("event-refused", "events", json!(["SiteCreated", "ViewDeleted"]))?;
    declared.set("wrong-token", "token_secret", json!("secret-that-is-wrong"))?;
    declared.set("too-old", "server", json!(format!("http://{}", old.address)))?;
    declared.set("certificate", "server", json!(untrusted))?;
    declared.set("unreachable", "server", json!("http://127.0.0.1:1"))?;
    declared.entries.insert("unreadable".to_owned(), r#"{"token_secret": "secret-half"#.to_owned());
    declared.entries.insert("twice".to_owned(), declared.entries["disabled"].clone());
    Ok(())
}

/// Returns the alerts' e-mails, sorted.
fn emails(alerts: &[AlertMessage]) -> anyhow::Result<Vec<String>> {
    let emails = alerts.iter().map(|AlertMessage { subject, body }| {
        let texts: Value = serde_json::from_str(body)?;
        Ok(format!("{subject}\n\n{}", texts["email"].as_str().context("no e-mail")?))
    });
    let mut emails = emails.collect::<anyhow::Result<Vec<_>>>()?;
    emails.sort();
    Ok(emails)
}

/// Replaces the servers' addresses and the sites' identifiers in a text.
fn with_names(text: &str, untrusted: &str, tableau: &Running, old: &Running) -> anyhow::Result<String> {
    let mut text = text.replace(untrusted, "https://untrusted");
    for (name, address) in [("tableau", tableau.address), ("old", old.address)] {
        text = text.replace(&address.to_string(), &format!("<{name}>"));
    }
    for name in SITES {
        text = text.replace(&site(tableau, name, |site| site.id.clone())?, "<id>");
    }
    Ok(text)
}

/// Collects all secrets: tokens, keys, the webhooks' signatures, sessions.
fn secrets(tableau: &Running, declared: &Declared) -> anyhow::Result<Vec<String>> {
    let keyring = declared.stored_keyring().as_ref().context("no keyring")?.expose_secret().to_owned();
    assert!(Keyring::parse(&keyring).is_ok());
    let mut secrets: Vec<_> = SITES.iter().map(|name| secret_of(name)).collect();
    secrets.extend(["secret-that-is-wrong", "secret-half", "secret-request"].map(str::to_owned));
    secrets.push(keyring.trim_matches(['[', ']', '"']).to_owned());
    let world = tableau.simulator.world();
    let urls = world.sites.values().flat_map(|site| site.webhooks.iter().map(|webhook| &webhook.url));
    secrets.extend(urls.filter_map(|url| Some(url.rsplit_once('/')?.1.to_owned())));
    secrets.extend(world.sites.values().flat_map(|site| site.sessions.iter().cloned()));
    Ok(secrets)
}

#[tokio::test]
async fn every_error_states_the_problem_and_the_fix_without_a_secret() -> anyhow::Result<()> {
    let log = Log::default();
    let writer = log.clone();
    // With one subscriber only, tracing would disable each log statement that another thread reaches first.
    let _second = tracing::Dispatch::new(NoSubscriber::new());
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());

    let destination = Destination::answering(StatusCode::BAD_GATEWAY).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let old = Simulator::start(None).await?;
    old.simulator.world().newest_version = (3, 8);
    let authority = Authority::new()?;
    let listener = authority.listen("localhost").await?;
    let untrusted = format!("https://localhost:{}", axum::serve::Listener::local_addr(&listener)?.port());
    let serving = tokio::spawn(tableau.simulator.clone().serve(listener));

    let mut declared = Declared::sites(&tableau, &SITES);
    for name in SITES {
        // A token for each, so that no site waits for another.
        declared.set(name, "token_name", json!(name))?;
        site(&tableau, name, |site| site.tokens[0].name = name.to_owned())?;
    }
    declared.apply().await??;
    declared.topics.take_alerts();
    declared.table.items().clear();
    cause_problems(&tableau, &old, &mut declared, &untrusted)?;

    let sites: Vec<_> = declared.entries.keys().cloned().chain(["nowhere".to_owned()]).collect();
    let result = declared.run(Action::Apply, Some(sites)).await?;
    let Err(failure @ Failure::Sites(_)) = result else { anyhow::bail!("the run succeeded") };
    let alerts = declared.topics.take_alerts();
    let shown = |text: &str| with_names(text, &untrusted, &tableau, &old);
    insta::assert_snapshot!("report", shown(&failure.to_string())?);
    insta::assert_snapshot!("alerts", shown(&emails(&alerts)?.join("\n\n-----\n\n"))?);

    let (text, debugged) = (failure.to_string(), format!("{failure:?}"));
    let outputs = [
        // The report, and Lambda's error.
        format!("{text} {debugged} {:?}", Diagnostic::from(failure)),
        format!("{alerts:?}"),
        format!("{:?}", declared.table.items()),
        declared.log().join("\n"),
        log.text(),
    ];
    let secrets = secrets(&tableau, &declared)?;
    assert!(secrets.len() > 60, "{} secrets", secrets.len());
    for (number, text) in outputs.iter().enumerate() {
        for secret in &secrets {
            if let Some(at) = text.find(secret.as_str()) {
                anyhow::bail!("output {number} has a secret: …{}…", &text[at.saturating_sub(200)..at]);
            }
        }
    }
    // The search finds other texts.
    assert!(outputs[4].contains("ended the run of the site") && outputs[4].contains("DEBUG"));
    serving.abort();
    Ok(())
}
