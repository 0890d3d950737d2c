//! The deployed product on ministack, which takes the part of AWS: each test has an account of its own there.

mod alarms;
mod delivery_under_rotation;
mod deployed;
mod faults;
mod inner_loop;
mod privileges;
mod strictness;
mod subscribing;
