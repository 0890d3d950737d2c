//! Version of the stack, compared with the version of this `cargo infra`.

use crate::{cloud::STACK, stack::Stack};

/// Version of this `cargo infra`, and of what it deploys.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Formats the stack's version, and how to update the stack if this `cargo infra` has another version.
pub(super) fn lines(stack: &Stack) -> Vec<String> {
    let option = if stack.name() == STACK { String::new() } else { format!(" --stack {}", stack.name()) };
    format_version(stack.output("Version").ok(), &option)
}

/// Formats the version, which stacks before 0.1.0 do not have.
fn format_version(version: Option<&str>, option: &str) -> Vec<String> {
    let mut lines = vec![format!("version {}", version.unwrap_or("before 0.1.0"))];
    match version {
        Some(OWN) => {}
        Some(version) if parts(version) > parts(OWN) => lines.push(format!(
            "this cargo infra has the older version {OWN}. Fix: check out the release v{version} and use its cargo infra"
        )),
        _ => lines.push(format!(
            "this cargo infra has the newer version {OWN}. To update the stack: cargo infra deploy{option}"
        )),
    }
    lines
}

/// Splits a version at its dots into numbers, since 0.10.0 is newer than 0.9.0.
fn parts(version: &str) -> Vec<Option<u64>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_reported_with_its_fix() {
        assert_eq!(format_version(Some(OWN), ""), [format!("version {OWN}")]);
        let update = format!("this cargo infra has the newer version {OWN}. To update the stack: cargo infra deploy");
        assert_eq!(format_version(None, ""), ["version before 0.1.0", &update]);
        let expected = ["version 0.0.99".to_owned(), format!("{update} --stack test")];
        assert_eq!(format_version(Some("0.0.99"), " --stack test"), expected);
        let newer = format_version(Some("999.0.0"), "");
        assert!(newer[1].ends_with("Fix: check out the release v999.0.0 and use its cargo infra"), "{newer:?}");
        assert!(parts("0.10.0") > parts("0.9.0"));
    }
}
