//! Environment variables of the programs that we start.

use std::env;

use tokio::process::Command;

/// Ministack's first account. Its number is also an access key for it.
pub(crate) const ACCOUNT: &str = "000000000000";

/// Region of the local cloud. AWS has none of this name, so that no call can reach AWS. For the regions that it knows, version 1
/// of the AWS CLI sends commands about queues to AWS, whatever `AWS_ENDPOINT_URL` says.
pub const REGION: &str = "eu-local-1";

/// Settings of the local cloud and of everything that calls it. They replace the user's own profile, so that no call can
/// reach a real account.
pub const AWS: [(&str, &str); 8] = [
    ("AWS_ACCESS_KEY_ID", ACCOUNT),
    ("AWS_SECRET_ACCESS_KEY", "local"),
    ("AWS_REGION", REGION),
    ("AWS_DEFAULT_REGION", REGION),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_PAGER", ""),
];

/// Prefixes of the variables that describe our own package. A nested cargo would rebuild because of them.
const OF_OUR_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Replaces the user's AWS settings by [`AWS`], and removes cargo's variables about our own package.
pub(crate) fn isolate(command: &mut Command) {
    forget_our_package(command);
    remove(command, &["AWS_"]);
    command.envs(AWS);
}

/// Removes cargo's variables about our own package.
pub fn forget_our_package(command: &mut Command) {
    remove(command, &OF_OUR_PACKAGE);
}

/// Removes the variables that have one of the prefixes.
fn remove(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}
