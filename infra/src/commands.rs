//! The subcommands of `cargo infra`, a file each.

pub mod add_site;
pub mod deploy;
pub mod destroy;
pub mod local;
pub mod package;
pub mod reconcile;
pub mod replay;
pub mod simulate;
pub mod status;
pub mod test;
pub mod url;
