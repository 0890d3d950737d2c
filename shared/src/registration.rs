//! Registrations: one event of one site each, and the signed URL that authenticates its deliveries.

pub mod claim;
pub mod keyring;
pub mod signed_url;
pub mod site_name;
