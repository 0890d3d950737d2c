//! The receiver as Lambda calls it: Function URL events in, answers and published messages out.

mod deliveries;
mod doubles;
mod strangers;
