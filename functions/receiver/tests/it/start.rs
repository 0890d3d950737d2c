//! The error of a receiver that cannot start.

use std::process::Command;

use serde_json::Value;

#[test]
fn without_its_environment_it_ends_and_names_the_variables() {
    let output = Command::new(env!("CARGO_BIN_EXE_tableau-webhook-receiver")).env_clear().output().expect("it starts");
    let line: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert!(!output.status.success() && output.stderr.is_empty());
    assert_eq!(line["level"], "ERROR");
    for expected in ["EVENTS_TOPIC_ARN is missing: expected ", "SIGNING_KEYS_PARAMETER is missing: expected "] {
        assert!(line["message"].as_str().is_some_and(|message| message.contains(expected)), "{line}");
    }
}
