//! The deployed product on ministack, which takes the part of AWS: each test has an account of its own there.

mod alarms;
mod deployed;
mod faults;
mod inner_loop;
mod privileges;
mod rotation;
mod subscribing;
