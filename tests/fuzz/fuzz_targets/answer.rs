//! Every reader of a Tableau server's answers, from the bytes of a body: compressed or not, JSON, XML or HTML.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| tableau::fuzzing::read(body));
