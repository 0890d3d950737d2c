//! Registrations: what a webhook may speak for, and the signed URL that proves it.

pub mod claim;
pub mod keyring;
pub mod signed_url;
pub mod site_name;
