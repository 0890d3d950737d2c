//! The end of a site's token: when it is announced, and that it is no longer announced after a renewal.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use axum::http::StatusCode;
use end_to_end::{
    declared::{Declared, secret_of, site},
    destination::Destination,
};
use reconciler::request::Action;
use serde_json::Value;
use shared::{alerts::message::AlertMessage, sites::token_end::STAGES};
use tableau_simulator::{
    model::AccessToken,
    server::{Running, Simulator},
    tokens::TokenList,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// The call that lists tokens.
const TOKENS_CALL: &str = "GET sites/{site}/users/{user}/personal-access-tokens";

/// The days of four weeks on which the year's runs happen: after each stage of each token began, and a quiet one first.
const DAYS_OF_RUNS: [i64; 6] = [0, 2, 3, 4, 18, 25];

/// The calls of a run that changes nothing, but for the list of tokens.
const CALLS_OF_NO_CHANGE: [&str; 3] = ["POST auth/signin", "GET sites/{site}/webhooks", "POST auth/signout"];

const NOTHING: [&str; 0] = [];

/// Sites on one Tableau server, and a server in the receiver's place.
struct Sites {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

/// Where the end of a token can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// In Tableau's list, in one of its shapes.
    Listed(TokenList),
    /// In the site entry, with this answer of Tableau.
    Declared(TokenList),
}

impl Sites {
    async fn start(names: &[&str]) -> anyhow::Result<Self> {
        let destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let mut declared = Declared::sites(&tableau, names);
        declared.events = "ViewDeleted";
        Ok(Self { tableau, declared, _destination: destination })
    }

    /// Lets a site's token end after a time.
    fn ends_in(&mut self, name: &str, time: Duration, known: Known) -> anyhow::Result<()> {
        let ends_at = OffsetDateTime::now_utc() + time;
        site(&self.tableau, name, |site| {
            site.tokens.iter_mut().for_each(|token| token.ends_at = Some(ends_at));
            let (Known::Listed(shape) | Known::Declared(shape)) = known;
            site.oddities.token_list = shape;
        })?;
        let declared = matches!(known, Known::Declared(_)).then(|| ends_at.format(&Rfc3339)).transpose()?;
        if let Some(declared) = declared {
            self.declared.set(name, "token_expires", declared.into())?;
        }
        Ok(())
    }

    /// Replaces a site's token by one that lasts two years: of the same name with another secret, or of another name.
    fn renew(&mut self, name: &str, known: Known, token_name: &str) -> anyhow::Result<()> {
        let secret = format!("{}/renewed", secret_of(name));
        site(&self.tableau, name, |site| {
            site.tokens.clear();
            site.add_token(token_name, &secret);
        })?;
        self.declared.set(name, "token_name", token_name.into())?;
        self.declared.set(name, "token_secret", secret.into())?;
        self.ends_in(name, Duration::days(730), known)
    }

    /// Lets time pass: everything that is stored, and every end, comes nearer.
    fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        self.declared.table.age(time);
        let earlier = |AccessToken { ends_at, .. }: &mut AccessToken| *ends_at = ends_at.map(|at| at - time);
        for (name, site) in &mut self.tableau.simulator.world().sites {
            site.tokens.iter_mut().for_each(earlier);
            let entry: Value = serde_json::from_str(&self.declared.entries[name])?;
            if let Some(end) = entry["token_expires"].as_str() {
                let end = OffsetDateTime::parse(end, &Rfc3339)? - time;
                self.declared.set(name, "token_expires", end.format(&Rfc3339)?.into())?;
            }
        }
        Ok(())
    }

    /// Runs the reconciler. Returns the subjects of its alerts.
    async fn run(&self) -> anyhow::Result<Vec<String>> {
        // A refused token fails the run.
        let _ = self.declared.apply().await?;
        Ok(self.declared.topics.take_subjects())
    }

    /// Runs the reconciler twice on a day that begins no stage. The second run has no news and nothing to store, and makes no call
    /// more than ever. Returns the alerts of the first.
    async fn expect_one_call_a_day(&self, names: &[&str]) -> anyhow::Result<Vec<AlertMessage>> {
        self.expect_calls(names, true).await?;
        let alerts = self.declared.topics.take_alerts();
        let versions = || {
            let items = self.declared.table.items();
            let of_sites = items.iter().filter(|(key, _)| *key != "run");
            of_sites.map(|(key, item)| (key.clone(), item.version)).collect::<BTreeMap<_, _>>()
        };
        let before = versions();
        self.expect_calls(names, false).await?;
        ensure!(versions() == before, "the second run stored something");
        let subjects = self.declared.topics.take_subjects();
        ensure!(subjects.is_empty(), "{subjects:?}");
        Ok(alerts)
    }

    /// Runs the reconciler. Checks that it lists the tokens of each site or of none, except while an end is announced.
    async fn expect_calls(&self, names: &[&str], lists: bool) -> anyhow::Result<()> {
        for name in names {
            self.calls(name)?;
        }
        self.declared.apply().await??;
        for name in names {
            let is_announced = !self.declared.table.content(&format!("token-end#{name}"))["problems"].is_null();
            let (tokens, others): (Vec<_>, Vec<_>) =
                self.calls(name)?.into_iter().partition(|call| call == TOKENS_CALL);
            ensure!(tokens.len() == usize::from(lists) || (is_announced && tokens.len() == 1), "{name}: {tokens:?}");
            ensure!(others == CALLS_OF_NO_CHANGE, "{name}: {others:?}");
        }
        Ok(())
    }

    /// Takes the calls at a site since the last time.
    fn calls(&self, name: &str) -> anyhow::Result<Vec<String>> {
        site(&self.tableau, name, |site| std::mem::take(&mut site.calls))
    }
}

/// Returns the text of an alert in an e-mail.
fn email(alert: &AlertMessage) -> anyhow::Result<String> {
    let texts: Value = serde_json::from_str(&alert.body)?;
    Ok(texts["email"].as_str().context("no e-mail")?.to_owned())
}

/// A site in a year, with the alerts that it causes.
struct Plan {
    known: Known,
    /// When its token ends, in hours from now.
    hours: i64,
    /// The stage after which the token is renewed; 0 for its end, none for never.
    renewed_after: Option<i64>,
    token_name: &'static str,
    seen: Vec<String>,
}

impl Plan {
    /// The site of a number: ends are spread over the year, and all ways of knowing and renewing occur.
    fn of(number: i64) -> Self {
        let known = match number % 6 {
            0 | 1 => Known::Listed(TokenList::Usual),
            2 => Known::Listed(
                [TokenList::OddRows, TokenList::Nested, TokenList::LoneObject]
                    [usize::try_from(number / 6 % 3).unwrap_or_default()],
            ),
            3 => Known::Declared(TokenList::NotThere),
            4 => Known::Declared(TokenList::Forbidden),
            _ => Known::Declared(
                [TokenList::WithoutOurs, TokenList::WithoutExpiry][usize::try_from(number / 6 % 2).unwrap_or_default()],
            ),
        };
        let renewed_after = STAGES.into_iter().chain([0]).nth(usize::try_from(number % 5).unwrap_or_default());
        let token_name = if number % 2 == 0 { "fanout" } else { "renewed" };
        Self { known, hours: (number / 4 * 28 + 3) * 24 + 10 + number % 4, renewed_after, token_name, seen: Vec::new() }
    }

    /// The alerts of the site: each stage that lies ahead, the end, and that it is over.
    fn expected(&self) -> Vec<String> {
        let days = self.hours / 24;
        // A stage that has begun before the first run is announced by it, unless a later one has begun too.
        let first = STAGES.into_iter().filter(|stage| *stage > days).min();
        let mut expected = Vec::new();
        for stage in STAGES.into_iter().filter(|stage| *stage <= days || Some(*stage) == first) {
            expected.push(format!("ends {stage}"));
            if self.renewed_after.is_some_and(|after| after >= stage) {
                expected.push("solved: token ends soon".to_owned());
                return expected;
            }
        }
        expected.extend(["token refused", "solved: token refused"].map(str::to_owned));
        expected
    }
}

/// Notes which alerts name which sites. Returns the sites whose tokens are to be renewed.
fn note(alerts: &[AlertMessage], plans: &mut BTreeMap<String, Plan>) -> anyhow::Result<Vec<String>> {
    let mut renewed = Vec::new();
    for alert in alerts {
        let text = email(alert)?;
        let (_, headline) = alert.subject.split_once(": ").context("a subject without a headline")?;
        for (name, plan) in plans.iter_mut().filter(|(name, _)| text.contains(*name)) {
            if headline == "token ends soon" {
                let line = text.lines().find(|line| line.contains(name.as_str())).unwrap_or_default();
                let left: i64 = match line.split_once("(in ").map(|(_, left)| left) {
                    Some(left) if left.starts_with("less") => 0,
                    Some(left) => left.split(' ').next().unwrap_or_default().parse()?,
                    None => anyhow::bail!("no days in {text}"),
                };
                let stage = STAGES.into_iter().filter(|stage| *stage > left).min().context("no stage")?;
                plan.seen.push(format!("ends {stage}"));
                renewed.extend(plan.renewed_after.filter(|after| *after >= stage && *after > 0).map(|_| name.clone()));
            } else {
                plan.seen.push(headline.to_owned());
                renewed.extend((headline == "token refused").then(|| name.clone()));
            }
        }
    }
    Ok(renewed)
}

#[tokio::test]
async fn in_a_year_each_end_of_a_token_is_announced_at_each_stage_once() -> anyhow::Result<()> {
    let names: Vec<_> = (0..50).map(|number| format!("site-{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut sites = Sites::start(&names).await?;
    let mut plans: BTreeMap<_, _> =
        names.iter().zip(0..).map(|(name, number)| ((*name).to_owned(), Plan::of(number))).collect();
    for (name, plan) in &plans {
        sites.ends_in(name, Duration::hours(plan.hours), plan.known)?;
    }
    for day in 0..=365 {
        if DAYS_OF_RUNS.contains(&(day % 28)) {
            let alerts = if day > 0 && day % 28 == 0 {
                sites.expect_one_call_a_day(&names).await?
            } else {
                // A refused token fails the run.
                let _ = sites.declared.apply().await?;
                sites.declared.topics.take_alerts()
            };
            for name in note(&alerts, &mut plans)? {
                let Plan { known, token_name, .. } = plans[&name];
                sites.renew(&name, known, token_name)?;
            }
        }
        sites.pass(Duration::DAY)?;
    }
    for (name, plan) in &plans {
        let Plan { known, hours, seen, .. } = plan;
        ensure!(*seen == plan.expected(), "{name} {known:?} in {hours} h: {seen:?}, not {:?}", plan.expected());
    }
    let stored = format!("{:?}", sites.declared.table.items()) + &sites.declared.log().join("\n");
    for secret in names.iter().map(|name| secret_of(name)).chain(["@".to_owned(), "fanout\"".to_owned()]) {
        ensure!(!stored.contains(&secret), "{secret} is stored or logged");
    }
    Ok(())
}

#[tokio::test]
async fn a_list_that_does_not_say_when_our_token_ends_harms_nothing() -> anyhow::Result<()> {
    use TokenList::{
        Empty, Forbidden, NotThere, Null, OddExpiry, Page, ServerError, Usual, WithoutExpiry, WithoutOurs,
    };

    for shape in [NotThere, Forbidden, ServerError, Page, Empty, Null, WithoutOurs, WithoutExpiry, OddExpiry] {
        let mut sites = Sites::start(&["marketing"]).await?;
        sites.ends_in("marketing", Duration::days(5), Known::Listed(shape))?;
        let report = sites.declared.apply().await?.with_context(|| format!("{shape:?}"))?;
        assert_eq!((sites.declared.topics.take_subjects().len(), report.sites[0].token_ends), (0, None), "{shape:?}");
        assert!(!sites.declared.log().join("").contains("TokenDaysLeft"), "{shape:?}");
        // The end that was listed before stays announced.
        sites.ends_in("marketing", Duration::days(5), Known::Listed(Usual))?;
        sites.pass(Duration::DAY)?;
        assert_eq!(sites.run().await?, ["Tableau marketing: token ends soon"]);
        site(&sites.tableau, "marketing", |site| site.oddities.token_list = shape)?;
        for _ in 0..2 {
            sites.declared.apply().await?.with_context(|| format!("{shape:?}"))?;
            assert_eq!(sites.declared.topics.take_subjects(), NOTHING, "{shape:?}");
        }
        // It is asked for once a day again.
        assert!(sites.calls("marketing")?.contains(&TOKENS_CALL.to_owned()));
        sites.run().await?;
        assert!(!sites.calls("marketing")?.contains(&TOKENS_CALL.to_owned()), "{shape:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_alert_names_the_end_the_effect_and_the_command() -> anyhow::Result<()> {
    let mut sites = Sites::start(&["marketing"]).await?;
    sites.declared.set("marketing", "token_expires", "2026-05-21".into())?;
    // This end is past, and the token works: the entry is out of date.
    let report = sites.declared.apply().await??;
    assert_eq!((sites.run().await?, report.sites[0].token_ends), (Vec::new(), None));
    let in_days = (OffsetDateTime::now_utc() + Duration::days(8)).date();
    sites.declared.set("marketing", "token_expires", in_days.to_string().into())?;
    let report = sites.declared.apply().await??;
    assert!(report.text.contains(&format!("  token ends on {in_days} (in 7 days)")), "{}", report.text);
    let line: Value = serde_json::from_str(sites.declared.log().last().context("no line")?)?;
    assert_eq!(line["TokenDaysLeft"].as_u64(), Some(7), "{line}");
    let alerts = sites.declared.topics.take_alerts();
    assert_eq!((alerts.len(), &*alerts[0].subject), (1, "Tableau marketing: token ends soon"));
    let texts: Value = serde_json::from_str(&alerts[0].body)?;
    let text = |protocol: &str| texts[protocol].as_str().unwrap_or_default().replace(&in_days.to_string(), "DATE");
    insta::assert_snapshot!(format!("{}\n---\n{}", text("email"), text("sms")), @r#"
    Tableau site marketing: The token "fanout" ends on DATE (in 7 days).

    After that webhooks that work keep working, but they are not repaired, and failures are not explained.

    Create a new token on Tableau (My Account Settings, Personal Access Tokens) as an administrator of the site and run: cargo infra add-site marketing --overwrite --stack fan (or: aws ssm put-parameter --name /tableau-fanout/sites/marketing --type SecureString --key-id alias/fan --overwrite --value file://site.json)
    ---
    Tableau marketing: token ends soon. The token "fanout" ends on DATE (in 7 days).
    "#);
    // A plan reports it and sends no alert.
    let report = sites.declared.run(Action::Plan, None).await??;
    assert!(report.text.contains("token ends on") && sites.declared.topics.take_alerts().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_renewed_for_a_few_days_is_announced_anew() -> anyhow::Result<()> {
    let mut sites = Sites::start(&["marketing"]).await?;
    sites.ends_in("marketing", Duration::days(2), Known::Listed(TokenList::Usual))?;
    assert_eq!(sites.run().await?, ["Tableau marketing: token ends soon"]);
    sites.ends_in("marketing", Duration::days(20), Known::Listed(TokenList::Usual))?;
    assert_eq!(sites.run().await?, ["Tableau marketing: solved: token ends soon"]);
    assert_eq!(sites.run().await?, ["Tableau marketing: token ends soon"]);
    assert_eq!(sites.run().await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn an_end_is_announced_while_the_server_cannot_be_reached() -> anyhow::Result<()> {
    let mut sites = Sites::start(&["marketing"]).await?;
    sites.ends_in("marketing", Duration::days(31), Known::Declared(TokenList::NotThere))?;
    assert_eq!(sites.run().await?, NOTHING);
    site(&sites.tableau, "marketing", |site| site.oddities.server_errors = 1000)?;
    sites.pass(Duration::days(2))?;
    let alerts = ["Tableau marketing: Tableau failed", "Tableau marketing: token ends soon"];
    assert_eq!(sites.run().await?, alerts);
    assert_eq!(sites.run().await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn the_items_of_a_removed_site_are_deleted() -> anyhow::Result<()> {
    let mut sites = Sites::start(&["finance", "marketing"]).await?;
    sites.ends_in("marketing", Duration::days(2), Known::Listed(TokenList::Usual))?;
    assert_eq!(sites.run().await?, ["Tableau marketing: token ends soon"]);
    sites.declared.entries.remove("marketing");
    assert_eq!(sites.run().await?, ["Tableau marketing: solved: token ends soon"]);
    let keys: Vec<_> = sites.declared.table.items().keys().cloned().collect();
    assert_eq!(keys, ["run", "token-end#finance"]);
    Ok(())
}
