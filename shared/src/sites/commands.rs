//! The commands that add, change and remove a site, as alerts, reports and errors name them.

/// The stack that `cargo infra` acts on without `--stack`.
pub const DEFAULT_STACK: &str = "tableau-fanout";

/// Formats a command of `cargo infra` for a stack.
///
/// ```
/// use shared::sites::commands::infra;
///
/// assert_eq!(infra("remove-site marketing", "tableau-fanout"), "cargo infra remove-site marketing");
/// assert_eq!(infra("remove-site marketing", "test"), "cargo infra remove-site marketing --stack test");
/// ```
pub fn infra(command: &str, stack: &str) -> String {
    format!("cargo infra {command}{}", stack_option(stack))
}

/// Returns the option for a stack, with a space before it; nothing for the default stack.
pub fn stack_option(stack: &str) -> String {
    if stack == DEFAULT_STACK { String::new() } else { format!(" --stack {stack}") }
}

/// The entries of a stack, for commands about them. Each text has the command of `cargo infra` first, and then, for users
/// without it, the one of the AWS CLI.
///
/// ```
/// use shared::sites::commands::SiteCommands;
///
/// let commands = SiteCommands { stack: "test", sites_path: "/test/sites" };
/// assert_eq!(
///     commands.remove_site("marketing"),
///     "cargo infra remove-site marketing --stack test (or: aws ssm delete-parameter --name /test/sites/marketing)"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SiteCommands<'a> {
    /// The stack's name.
    pub stack: &'a str,
    /// The SSM path of the site entries.
    pub sites_path: &'a str,
}

impl SiteCommands<'_> {
    /// The command that adds a site.
    pub fn add_site(self, site: &str) -> String {
        format!("{} (or: {})", infra(&format!("add-site {site}"), self.stack), self.put_entry(site, ""))
    }

    /// The command that replaces a site's entry.
    pub fn replace_entry(self, site: &str) -> String {
        let command = infra(&format!("add-site {site} --overwrite"), self.stack);
        format!("{command} (or: {})", self.put_entry(site, " --overwrite"))
    }

    /// The command that replaces the list of events in a site's entry, and keeps the rest of the entry.
    pub fn replace_events(self, site: &str) -> String {
        let command = infra(&format!("add-site {site} --overwrite"), self.stack);
        format!(r#"echo '{{"events":["…"]}}' | {command}"#)
    }

    /// The command that removes a site.
    pub fn remove_site(self, site: &str) -> String {
        format!("{} (or: {})", infra(&format!("remove-site {site}"), self.stack), self.delete_entry(site))
    }

    /// The AWS command that deletes an entry and leaves the site's webhooks.
    pub fn delete_entry(self, site: &str) -> String {
        format!("aws ssm delete-parameter --name {}/{site}", self.sites_path)
    }

    /// The AWS command that stores an entry from `site.json`.
    fn put_entry(self, site: &str, option: &str) -> String {
        let Self { stack, sites_path } = self;
        format!(
            "aws ssm put-parameter --name {sites_path}/{site} --type SecureString --key-id alias/{stack}{option} --value \
             file://site.json"
        )
    }
}
