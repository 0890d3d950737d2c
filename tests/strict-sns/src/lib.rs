//! The rules of the real SNS. Ministack and simple doubles accept publishes that SNS refuses, and deliver messages that SNS
//! accepts and then withholds from subscribers.
//!
//! [`publish`] has the rules, without I/O. In-process doubles call it directly; deployed functions publish through a
//! [`gateway`].

pub mod gateway;
pub mod publish;
