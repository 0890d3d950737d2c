//! A Tableau server that quotes the secrets it was sent, in every place and spelling. No output shows them.

use std::collections::{BTreeMap, HashSet};

use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use end_to_end::{
    declared::{Declared, report_of, site},
    destination::Destination,
};
use reconciler::request::Action;
use serde_json::json;
use sha2::{Digest, Sha256};
use tableau_simulator::{
    echo::{Echo, EchoPlace, EchoedSecret, Spelling},
    model::Oddities,
    server::{Running, Simulator},
};
use time::Duration;
use tracing::{level_filters::LevelFilter, subscriber::NoSubscriber};

use crate::{
    errors::Log,
    refreshes::{failed, pass},
};

/// The number of consecutive characters of a secret that no output may show.
const PIECE: usize = 8;

/// Time since a refresh failed, long enough for its job to be read.
const JOB_AGE: Duration = Duration::minutes(10);

const SECRETS: [EchoedSecret; 3] = [EchoedSecret::Token, EchoedSecret::Session, EchoedSecret::Address];

const SPELLINGS: [Spelling; 17] = [
    Spelling::Same,
    Spelling::Path,
    Spelling::EscapedSlashes,
    Spelling::Percent,
    Spelling::PercentSmall,
    Spelling::PercentTwice,
    Spelling::PercentAll,
    Spelling::Unicode,
    Spelling::Entities,
    Spelling::HexEntities,
    Spelling::Port,
    Spelling::UpperHost,
    Spelling::CutStart,
    Spelling::CutEnd,
    Spelling::TwoLines,
    Spelling::Form,
    Spelling::Upper,
];

const PLACES: [EchoPlace; 16] = [
    EchoPlace::SignIn,
    EchoPlace::SignInPage,
    EchoPlace::Redirect,
    EchoPlace::SiteId,
    EchoPlace::List,
    EchoPlace::ListPage,
    EchoPlace::Change,
    EchoPlace::Test,
    EchoPlace::WebhookName,
    EchoPlace::WebhookId,
    EchoPlace::Reason,
    EchoPlace::Jobs,
    EchoPlace::JobPage,
    EchoPlace::ResourceName,
    EchoPlace::Notes,
    EchoPlace::SignOut,
];

/// Returns a site for each secret in each spelling, by name.
fn sites() -> impl Iterator<Item = (String, EchoedSecret, Spelling)> {
    let all = SECRETS.into_iter().flat_map(|secret| SPELLINGS.map(|spelling| (secret, spelling)));
    all.zip(0..).map(|((secret, spelling), number)| (format!("s{number:02}"), secret, spelling))
}

/// Returns a site's secret, with the length and the characters of Tableau's.
fn token_secret(site: &str) -> String {
    let digest = BASE64_STANDARD.encode(Sha256::digest(site));
    let (name, rest) = digest.split_at(18);
    format!("{name}+/k==:{}", rest.replace(['+', '/', '='], "x"))
}

/// Removes white space and backslashes, so that line ends and nested quoting make no difference.
fn bare(text: &str) -> String {
    text.replace("&amp;", "&").chars().filter(|it| !it.is_whitespace() && *it != '\\').collect()
}

/// Returns every piece of a secret, as it is and as the server spells it.
fn pieces(secret: &str, spelling: Spelling) -> impl Iterator<Item = String> {
    let pieces = (0..=secret.len() - PIECE).map(|start| &secret[start..start + PIECE]);
    let spelled = pieces.flat_map(move |piece| [piece.to_owned(), piece.to_lowercase(), spelling.spell(piece)]);
    spelled.map(|piece| bare(&piece)).filter(|piece| piece.len() >= PIECE)
}

/// A text with an index of its pieces.
struct Seen(String, HashSet<Vec<u8>>);

impl Seen {
    fn new(text: &str) -> Self {
        let text = bare(text);
        let pieces = text.as_bytes().windows(PIECE).map(<[u8]>::to_vec).collect();
        Self(text, pieces)
    }

    /// Returns the text around a piece of a secret, if the text has it.
    fn around(&self, piece: &str) -> Option<String> {
        let Self(text, pieces) = self;
        let at = pieces.contains(piece.as_bytes().get(..PIECE)?).then(|| text.find(piece))??;
        let before: Vec<_> = text[..at].chars().rev().take(60).collect();
        Some(before.into_iter().rev().chain(text[at..].chars().take(80)).collect())
    }
}

/// Declares healthy sites, one for each secret and spelling, and reconciles them.
async fn healthy(tableau: &Running) -> anyhow::Result<Declared> {
    let names: Vec<_> = sites().map(|(name, ..)| name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut declared = Declared::sites(tableau, &names);
    declared.recover_hours = "24";
    declared.events = "ViewDeleted,WorkbookRefreshFailed";
    for name in &names {
        let secret = token_secret(name);
        declared.set(name, "token_secret", json!(secret))?;
        // A token for each, so that no site waits for another.
        declared.set(name, "token_name", json!(name))?;
        site(tableau, name, |site| (site.tokens[0].name, site.tokens[0].secret) = ((*name).to_owned(), secret))?;
    }
    declared.apply().await??;
    pass(tableau, &declared, &names, Duration::minutes(15))?;
    Ok(declared)
}

/// Makes every site quote its secret in a place. Each has a webhook to be enabled, one to be created, and a failed refresh.
fn quote(tableau: &Running, place: EchoPlace) -> anyhow::Result<()> {
    for (name, secret, spelling) in sites() {
        site(tableau, &name, |site| {
            site.oddities = Oddities {
                echo: Some(Echo { secret, place, spelling }),
                // For a second sign-in, which can quote the first session.
                sessions_gone_after: (secret == EchoedSecret::Session).then_some(0),
                ..Oddities::default()
            };
            site.webhooks.retain(|webhook| webhook.name != "fan-ViewDeleted");
            site.webhooks.iter_mut().for_each(|webhook| webhook.disable(None));
            let mut job = failed("j1");
            (job.started_at, job.ended_at) = (job.started_at - JOB_AGE, job.ended_at - JOB_AGE);
            site.jobs = vec![job];
            site.sessions.clear();
        })?;
    }
    Ok(())
}

#[tokio::test]
async fn no_output_shows_a_secret_that_a_server_quotes_in_any_place_or_spelling() -> anyhow::Result<()> {
    let log = Log::default();
    let writer = log.clone();
    // With one subscriber only, tracing would disable each log statement that another thread reaches first.
    let _second = tracing::Dispatch::new(NoSubscriber::new());
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());

    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    let declared = healthy(&tableau).await?;
    let stored = declared.table.items().clone();
    let (mut tried, mut hidden, mut shown) = (0, 0, BTreeMap::<String, Vec<String>>::new());
    for place in PLACES {
        (*declared.table.items()).clone_from(&stored);
        quote(&tableau, place)?;
        log.take();
        declared.topics.take_alerts();
        let action = if place == EchoPlace::Test { Action::Test } else { Action::Apply };
        let report = report_of(declared.run(action, None).await?)?;
        let (alerts, events) = (declared.topics.take_alerts(), declared.topics.events());
        let is_explained = events.iter().any(|event| event.body.contains("j1"));
        assert!(is_explained || place != EchoPlace::Notes);
        let sent = Seen::new(&format!("{alerts:?} {events:?} {:?}", declared.table.items()));
        let (log, texts) = (log.take(), Seen::new(&format!("{}\n{}", report.text, declared.log().join("\n"))));
        assert!(log.contains("ended the run of the site"), "{place:?}");
        for ((name, secret, spelling), report) in sites().zip(&report.sites) {
            let of_site = |line: &&str| line.contains(&format!("site={name}}}"));
            let lines: Vec<_> = log.lines().filter(of_site).collect();
            let seen = Seen::new(&format!("{} {}", serde_json::to_string(report)?, lines.join("\n")));
            let secrets: Vec<_> = site(&tableau, &name, |site| match secret {
                EchoedSecret::Token => vec![site.tokens[0].secret.clone()],
                EchoedSecret::Session => site.sessions.clone(),
                EchoedSecret::Address => {
                    site.webhooks.iter().filter_map(|it| Some(it.url.rsplit_once('/')?.1.to_owned())).collect()
                }
            })?;
            tried += 1;
            let of_notes = place == EchoPlace::Notes && sent.0.contains("[redacted]");
            hidden += usize::from(of_notes || seen.0.contains("[redacted]"));
            let mut pieces = secrets.iter().flat_map(|secret| pieces(secret, spelling));
            let shows = |piece: String| [&seen, &sent, &texts].iter().find_map(|text| text.around(&piece));
            if let Some(around) = pieces.find_map(shows) {
                shown.entry(format!("{place:?}")).or_default().push(format!("{secret:?} {spelling:?}: …{around}…"));
            }
        }
    }
    let count: usize = shown.values().map(Vec::len).sum();
    assert!(count == 0, "{count} of {tried} are shown: {shown:#?}");
    // Host names allow few characters, and reports truncate errors. All others were quoted.
    assert!(hidden * 20 >= tried * 19, "only {hidden} of {tried} were quoted");
    Ok(())
}
