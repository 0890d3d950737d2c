//! Tests of the deployed stack on ministack, a local AWS. Each test has its own account there.

mod alarms;
mod delivery_under_rotation;
mod deployed;
mod explaining;
mod faults;
mod inner_loop;
mod privileges;
mod strictness;
mod subscribing;
mod targets;
mod upgrading;
