//! Version of the stack, compared with the version of this `cargo infra`.

use crate::findings::Finding;

/// Version of this `cargo infra`, and of what it deploys.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Compares the stack's version, which stacks before 0.1.0 do not have. Returns how to update the older of the two.
pub(super) fn finding(version: Option<&str>, option: &str) -> Option<Finding> {
    match version {
        Some(OWN) => None,
        Some(version) if parts(version) > parts(OWN) => Some(Finding::notable(
            format!("the stack has version {version}, and this cargo infra the older version {OWN}."),
            format!("check out the release v{version} and use its cargo infra"),
        )),
        _ => Some(Finding::notable(
            format!(
                "the stack has {}, and this cargo infra the newer version {OWN}.",
                version.map_or("a version before 0.1.0".to_owned(), |version| format!("version {version}"))
            ),
            format!("cargo infra deploy{option} updates the stack"),
        )),
    }
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
        assert_eq!(finding(Some(OWN), ""), None);
        let older = finding(None, "").expect("a finding");
        assert!(
            !older.is_wrong && older.what.starts_with("the stack has a version before 0.1.0, and this"),
            "{older:?}"
        );
        let older = finding(Some("0.0.99"), " --stack test").expect("a finding");
        assert_eq!(older.fix, "cargo infra deploy --stack test updates the stack");
        let newer = finding(Some("999.0.0"), "").expect("a finding");
        assert_eq!(newer.fix, "check out the release v999.0.0 and use its cargo infra");
        assert!(parts("0.10.0") > parts("0.9.0"));
    }
}
