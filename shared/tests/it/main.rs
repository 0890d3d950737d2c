//! Tests of the crate's public interface.

mod planted;
mod redaction;
