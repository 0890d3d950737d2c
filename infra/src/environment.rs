//! What programs find in their environment when we start them.

use std::env;

use tokio::process::Command;

/// Ministack's first account. Its number is an access key to it.
pub(crate) const ACCOUNT: &str = "000000000000";

/// Settings for everything that calls the local cloud, and for the cloud itself: fixed credentials, and nothing of a
/// person's own profile, so that no call can reach a real account.
pub const AWS: [(&str, &str); 8] = [
    ("AWS_ACCESS_KEY_ID", ACCOUNT),
    ("AWS_SECRET_ACCESS_KEY", "local"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_PAGER", ""),
];

/// What cargo tells a program about its own package. It makes a cargo that the program starts build things again.
const OF_OUR_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Replaces a person's own AWS settings with ours, and leaves out what cargo told us of ourselves.
pub(crate) fn isolate(command: &mut Command) {
    forget_our_package(command);
    remove(command, &["AWS_"]);
    command.envs(AWS);
}

/// Leaves out what cargo told us of ourselves.
pub fn forget_our_package(command: &mut Command) {
    remove(command, &OF_OUR_PACKAGE);
}

/// Leaves out the variables whose names begin like this.
fn remove(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}
