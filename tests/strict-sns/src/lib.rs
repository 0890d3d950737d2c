//! SNS as strict as the real one. Ministack and doubles that take everything hide what only production would show: a
//! publish that SNS refuses, and a message that it accepts and then withholds from subscribers.
//!
//! The rules are in [`publish`], without I/O. In-process doubles ask it directly; deployed functions publish through a
//! [`gateway`].

pub mod gateway;
pub mod publish;
