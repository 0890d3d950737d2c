//! Tests of target entries.

use proptest::{option, prelude::*, sample::select};
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::alerts::data::{AlertKind, Severity};

fn parse(entry: &Value) -> Result<TargetEntry, SettingsError> {
    TargetEntry::parse(&"bi-team".parse().expect("a name"), &entry.to_string())
}

fn error(entry: &Value) -> String {
    parse(entry).expect_err("not usable").to_string()
}

/// Returns the entry of a preset with all that it requires, and further members.
fn entry(preset: &str, further: Value) -> Value {
    let mut entry = json!({"preset": preset, "address": "https://target.example/hook"});
    match preset {
        "custom" => entry["template"] = "{}".into(),
        "pagerduty" => entry["credentials"] = json!({"type": "body", "member": "routing_key", "value": "R0"}),
        _ => {}
    }
    let Value::Object(further) = further else { panic!("an object") };
    entry.as_object_mut().expect("an object").extend(further);
    entry
}

/// A key of 24 bytes.
fn signing_secret(bytes: usize) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]))
}

#[test]
fn an_entry_is_read() {
    let entry = parse(&json!({
        "preset": "plain",
        "address": "https://target.example/hook?key=k",
        "credentials": {"type": "header", "name": "X-Api-Key", "value": "a key"},
        "signing_secret": signing_secret(24),
        "per_second": 3,
        "selection": {"kinds": ["refresh-failed"], "severities": ["error"], "sites": ["marketing"], "projects": ["Finance"]},
        "redirect_is_success": true,
    }))
    .expect("usable");
    assert_eq!((entry.name.as_str(), entry.preset), ("bi-team", Preset::Plain));
    assert_eq!(entry.address.url().as_str(), "https://target.example/hook?key=k");
    assert_eq!(entry.signing_secret.as_ref().map(ExposeSecret::expose_secret), Some(&*signing_secret(24)));
    assert_eq!(entry.gap(), Duration::from_secs(1) / 3);
    let selection = Selection {
        kinds: [AlertKind::RefreshFailed].into(),
        severities: [Severity::Error].into(),
        sites: ["marketing".parse().expect("a site")].into(),
        projects: ["Finance".to_owned()].into(),
    };
    assert_eq!(entry.selection, selection);
    assert!(entry.redirect_is_success && entry.template.is_none());
}

#[test]
fn two_members_are_enough_and_the_rate_follows_from_the_preset() {
    for preset in Preset::ALL {
        let entry = parse(&entry(preset.as_str(), json!({}))).expect("usable");
        let per_second = match preset {
            Preset::Slack | Preset::Coefficient => 1,
            Preset::PagerDuty => 2,
            Preset::Zapier => 20,
            _ => 10,
        };
        assert_eq!((entry.preset, entry.per_second.get()), (preset, per_second));
        assert_eq!((entry.selection, entry.redirect_is_success), (Selection::default(), false));
        assert_eq!(entry.template.is_some(), preset == Preset::Custom);
        assert_eq!(preset.to_string().parse(), Ok(preset));
    }
}

#[test]
fn the_error_names_all_problems_and_no_value() {
    let entry = json!({
        "preset": "s3cret",
        "address": "http://s3cret.example/",
        "credentials": {"type": "s3cret"},
        "signing_secret": "whsec_s3cret",
        "template": ["s3cret"],
        "per_second": 0,
        "selection": {"kinds": ["s3cret"], "severities": "s3cret", "sites": ["S3cret"], "projects": [1], "s3cret": 1},
        "redirect_is_success": "s3cret",
        "s3cret": "s3cret",
        "another": "s3cret",
    });
    insta::assert_snapshot!(error(&entry), @"the target entry bi-team cannot be used: it has members that are not known: allowed are preset, address, credentials, signing_secret, template, per_second, selection, redirect_is_success; preset is not valid: expected one of slack, teams, pagerduty, plain, zapier, ifttt, coefficient, custom; address is not valid: expected an https address without a user and a password, such as https://target.example/hook; credentials.type is not valid: expected one of none, header, basic, bearer, query, body; signing_secret is not valid: expected whsec_ and 24 to 64 bytes in base64, or no such member; template is missing: expected a template, or no such member; per_second is not valid: expected a whole number from 1 to 1000, or no such member; selection has a member that is not known: allowed are kinds, severities, sites, projects; selection.kinds is not valid: expected a list of refresh-failed, refresh-explained, refresh-resolved, refresh-stopped, refresh-recovered, event, problem, problem-solved, test, alarm; selection.severities is not valid: expected a list of info, warning, error; selection.sites is not valid: expected a list of names of sites, such as marketing; selection.projects is not valid: expected a list of names of projects; redirect_is_success is not valid: expected true or false, or no such member.");
}

#[test]
fn a_text_that_is_no_object_is_refused_without_showing_it() {
    for text in ["", "s3cret", "[\"s3cret\"]", "{\"address\":\"s3cret\"", "null"] {
        let error = TargetEntry::parse(&"bi-team".parse().expect("a name"), text).expect_err("not usable");
        assert_eq!(error.to_string(), "the target entry bi-team cannot be used: its value is not a JSON object.");
    }
}

#[test]
fn a_preset_refuses_members_of_another_one() {
    for preset in Preset::ALL.map(Preset::as_str) {
        let signed = parse(&entry(preset, json!({"signing_secret": signing_secret(24)})));
        let templated = parse(&entry(preset, json!({"template": "{}"})));
        let with_token = parse(&entry(preset, json!({"credentials": {"type": "bearer", "token": "t"}})));
        assert_eq!(signed.is_ok(), preset == "plain", "{preset}");
        assert_eq!(templated.is_ok(), preset == "custom", "{preset}");
        assert_eq!(with_token.is_ok(), preset != "pagerduty", "{preset}");
        let at_a_rate = parse(&entry(preset, json!({"per_second": 1})));
        assert_eq!(at_a_rate.is_ok(), preset != "coefficient", "{preset}");
    }
    let both = json!({"signing_secret": signing_secret(24), "template": "{}"});
    insta::assert_snapshot!(error(&entry("slack", both)), @"the target entry bi-team cannot be used: template is for the preset custom only; signing_secret is for the preset plain only.");
    let none = json!({"preset": "custom", "address": "https://target.example/"});
    insta::assert_snapshot!(error(&none), @"the target entry bi-team cannot be used: template is missing: the preset custom requires it.");
}

#[test]
fn pagerduty_requires_a_routing_key() {
    let none = json!({"preset": "pagerduty", "address": "https://events.pagerduty.com/v2/enqueue"});
    insta::assert_snapshot!(error(&none), @r#"the target entry bi-team cannot be used: credentials have no routing key: the preset pagerduty expects {"type":"body","member":"routing_key","value":"…"}."#);
    let other = json!({"credentials": {"type": "body", "member": "key", "value": "R0"}});
    assert_eq!(error(&entry("pagerduty", other)), error(&none));
    let empty =
        error(&entry("pagerduty", json!({"credentials": {"type": "body", "member": "routing_key", "value": ""}})));
    assert!(empty.contains("credentials.value is missing"), "{empty}");
}

#[test]
fn an_address_is_encrypted_on_every_network_and_has_no_user() {
    for (address, is_valid) in [
        ("https://hooks.slack.com/services/T0/B0/x", true),
        ("https://x.api.powerplatform.com:443/workflows/1/invoke?api-version=1&sig=s", true),
        ("HTTPS://Target.example", true),
        ("https://203.0.113.7/hook", true),
        ("http://localhost:8000/hook", true),
        ("http://127.0.0.1/hook", true),
        ("http://[::1]:8000/", true),
        ("http://target.example/hook", false),
        ("http://localhost.example/hook", false),
        ("http://10.0.0.1/hook", false),
        ("https://user@target.example/", false),
        ("https://:password@target.example/", false),
        ("https://", false),
        ("ftp://target.example/", false),
        ("file:///etc/passwd", false),
        ("target.example/hook", false),
        ("", false),
    ] {
        let entry = parse(&entry("slack", json!({"address": address})));
        assert_eq!(entry.is_ok(), is_valid, "{address}");
    }
}

#[test]
fn a_signing_secret_has_the_form_of_standard_webhooks() {
    let without_padding = signing_secret(25).trim_end_matches('=').to_owned();
    for (secret, is_valid) in [
        (signing_secret(24), true),
        (signing_secret(64), true),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), true),
        (signing_secret(23), false),
        (signing_secret(65), false),
        (signing_secret(32).replace("whsec_", ""), false),
        (signing_secret(32).replace("whsec_", "whpk_"), false),
        (without_padding, false),
        (format!("{}\n", signing_secret(24)), false),
        ("whsec_".to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(parse(&entry("plain", json!({"signing_secret": secret}))).is_ok(), is_valid, "{secret}");
    }
    // One of another type must not be taken for none: messages would not be signed.
    for secret in [json!(null), json!(7), json!([signing_secret(24)])] {
        assert!(parse(&entry("plain", json!({"signing_secret": secret}))).is_err(), "{secret}");
    }
}

#[test]
fn other_members_have_their_forms() {
    for (member, is_valid) in [
        (json!({"per_second": 1}), true),
        (json!({"per_second": 1000}), true),
        (json!({"per_second": 0}), false),
        (json!({"per_second": 1001}), false),
        (json!({"per_second": 0.5}), false),
        (json!({"per_second": -1}), false),
        (json!({"per_second": "1"}), false),
        (json!({"redirect_is_success": false}), true),
        (json!({"redirect_is_success": "false"}), false),
        (json!({"redirect_is_success": null}), false),
        (json!({"selection": {}}), true),
        (json!({"selection": {"kinds": [], "severities": [], "sites": [], "projects": []}}), true),
        (json!({"selection": []}), false),
        (json!({"selection": null}), false),
        (json!({"selection": {"sites": null}}), false),
        (json!({"selection": {"site": ["marketing"]}}), false),
        (json!({"Template": "{}"}), false),
    ] {
        assert_eq!(parse(&entry("plain", member.clone())).is_ok(), is_valid, "{member}");
    }
    for template in [json!(""), json!(null), json!({})] {
        assert!(parse(&entry("custom", json!({"template": template}))).is_err(), "{template}");
    }
}

/// Entries that are mostly not usable. Each text in them has a word that no output may have.
fn hostile_entry() -> impl Strategy<Value = Value> {
    let member = |values: Vec<Value>| option::weighted(0.8, select(values));
    let text = "s3cret";
    let presets = Preset::ALL.map(|preset| preset.as_str().into()).into_iter().chain([text.into(), json!([text])]);
    let addresses = [
        json!("https://s3cret.example/s3cret?s3cret=s3cret#s3cret"),
        json!("http://s3cret.example/"),
        json!("https://s3cret:s3cret@target.example/"),
        json!("s3cret"),
        json!({ text: text }),
    ];
    let credentials = [
        json!({"type": "header", "name": text, "value": text}),
        json!({"type": "header", "name": "s3cret: s3cret", "value": "s3cret\n"}),
        json!({"type": "basic", "user": text, "password": text}),
        json!({"type": "basic", "user": "s3cret:s3cret", "password": "s3cret\u{0}"}),
        json!({"type": "bearer", "token": text}),
        json!({"type": "bearer", "token": "s3cret s3cret", text: text}),
        json!({"type": "query", "name": text, "value": text}),
        json!({"type": "body", "member": text, "value": text}),
        json!({"type": "body", "member": ROUTING_KEY, "value": text}),
        json!({"type": text}),
        json!({ text: text }),
        json!(text),
    ];
    let secrets = [json!(format!("whsec_{}", "s3cretAA".repeat(4))), json!("whsec_s3cret"), json!([text])];
    let selections = [
        json!({"sites": [text], "projects": [text]}),
        json!({"kinds": [text], "severities": [text], "sites": ["s3cret s3cret"], "projects": text, text: text}),
        json!(text),
    ];
    let numbers = [json!(5), json!(text), json!([text])];
    let members = (
        member(presets.collect()),
        member(addresses.to_vec()),
        member(credentials.to_vec()),
        member(secrets.to_vec()),
        member(vec![json!(text), json!([text])]),
        member(numbers.to_vec()),
        member(selections.to_vec()),
        member(vec![json!(true), json!(text)]),
        option::weighted(0.2, Just(json!(text))),
    );
    members.prop_map(|(preset, address, credentials, secret, template, number, selection, redirect, unknown)| {
        let members = [preset, address, credentials, secret, template, number, selection, redirect, unknown];
        let names = MEMBERS_IN_ORDER.into_iter().zip(members);
        Value::Object(names.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    })
}

const MEMBERS_IN_ORDER: [&str; 9] = [
    "preset",
    "address",
    "credentials",
    "signing_secret",
    "template",
    "per_second",
    "selection",
    "redirect_is_success",
    "s3cret",
];

proptest! {
    #[test]
    fn no_text_of_an_entry_is_in_an_error_or_in_debug_output(entry in hostile_entry(), cut in option::of(0_usize..200)) {
        let text = entry.to_string();
        let text = &text[..cut.unwrap_or(text.len()).min(text.len())];
        let shown = match TargetEntry::parse(&"bi-team".parse().expect("a name"), text) {
            Ok(entry) => shown(&entry),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.to_lowercase().contains("s3cret"), "{shown}");
    }
}

/// Everything of an entry that can be formatted and may be secret.
fn shown(entry: &TargetEntry) -> String {
    let TargetEntry { address, credentials, signing_secret, .. } = entry;
    format!("{entry:?} {entry:#?} {address:?} {credentials:?} {signing_secret:?}")
}

#[test]
fn no_text_of_a_usable_entry_is_in_debug_output() {
    for credentials in [
        json!({"type": "header", "name": "s3cret", "value": "s3cret"}),
        json!({"type": "basic", "user": "s3cret", "password": "s3cret"}),
        json!({"type": "bearer", "token": "s3cret"}),
        json!({"type": "query", "name": "s3cret", "value": "s3cret"}),
        json!({"type": "body", "member": "s3cret", "value": "s3cret"}),
    ] {
        let mut members = json!({
            "address": "https://s3cret.example/s3cret?s3cret=s3cret#s3cret",
            "credentials": credentials,
            "selection": {"sites": ["s3cret"], "projects": ["s3cret"]},
        });
        for (preset, member, value) in
            [("custom", "template", "s3cret"), ("plain", "signing_secret", &format!("whsec_{}", "s3cretAA".repeat(4)))]
        {
            members[member] = value.into();
            let entry = parse(&entry(preset, members.clone())).expect("usable");
            assert!(!shown(&entry).to_lowercase().contains("s3cret"), "{}", shown(&entry));
            members.as_object_mut().expect("an object").remove(member);
        }
    }
}
