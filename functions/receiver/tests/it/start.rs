//! What a receiver that cannot start says.

use std::process::Command;

#[test]
fn without_its_environment_it_ends_and_says_what_to_set() {
    let output = Command::new(env!("CARGO_BIN_EXE_tableau-webhook-receiver")).env_clear().output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for expected in ["EVENTS_TOPIC_ARN is missing: expected ", "SIGNING_KEYS_PARAMETER is missing: expected "] {
        assert!(said.contains(expected), "{said}");
    }
}
