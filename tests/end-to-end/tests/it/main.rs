//! The product from outside: against a simulated Tableau, a local AWS, and programs that others wrote.

mod actions;
mod alarms;
mod deployed;
mod environment;
mod errors;
mod faults;
mod histories;
mod inner_loop;
mod peers;
mod people;
mod privileges;
mod reconciling;
mod refresh_histories;
mod refreshes;
mod running;
mod subscribing;
mod tableau;
