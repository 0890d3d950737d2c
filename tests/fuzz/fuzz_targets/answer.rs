//! Every reader of what a Tableau server answers, from the bytes of a body: compressed or not, JSON, XML or a page.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| tableau::fuzzing::read(body));
