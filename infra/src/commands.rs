//! The subcommands of `cargo infra`, a file each.

pub mod add_site;
pub mod add_sites;
pub mod add_target;
pub mod console;
pub mod deploy;
pub mod destroy;
pub mod events;
pub mod local;
pub mod package;
pub mod reconcile;
pub mod redrive;
pub mod remove_site;
pub mod remove_target;
pub mod replay;
pub mod simulate;
pub mod sites;
pub mod status;
pub mod tail;
pub mod targets;
pub mod test;
pub mod url;
