//! Filter of a list while it is received, so that a list of any length takes the memory of its wanted rows.
//!
//! A list of 20,000 refresh tasks as Tableau Cloud writes them has 7.2 MB, and there can be a list of each site at a time. The
//! filter keeps 40 KB of it: `0` for each row without a wanted identifier.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    str,
};

use crate::body::{TOO_LARGE, Unreadable};

/// The most bytes received of a list: more than 40,000 tasks.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes of a row. A longer one is not kept. A task has some hundreds.
const MAX_ROW_BYTES: usize = 16 * 1024;

const LONG_LIST: Unreadable = "the list exceeds 16 MiB";

/// Copies JSON, and replaces rows without a wanted identifier: with `0` in the list, which is the shortest, and with `null` for
/// an object in the place of the list. A defect within a replaced row is not noticed.
pub(crate) struct RowFilter<'a> {
    wanted: &'a BTreeSet<String>,
    max_bytes: usize,
    received: usize,
    kept: Vec<u8>,
    /// The number of open objects and lists, and the first of them.
    depth: usize,
    open: [u8; 3],
    row: Option<Row>,
    is_in_text: bool,
    is_escaped: bool,
    error: Option<Unreadable>,
}

/// The beginning of a row.
#[derive(Default)]
struct Row {
    /// The depth that ends it.
    depth: usize,
    bytes: Vec<u8>,
    /// Where its last text begins.
    text_start: usize,
    is_wanted: bool,
}

impl<'a> RowFilter<'a> {
    /// Creates a filter that keeps at most `max_bytes`.
    pub(crate) fn new(wanted: &'a BTreeSet<String>, max_bytes: usize) -> Self {
        Self {
            wanted,
            max_bytes,
            received: 0,
            kept: Vec::new(),
            depth: 0,
            open: [0; 3],
            row: None,
            is_in_text: false,
            is_escaped: false,
            error: None,
        }
    }

    /// Receives the next bytes of the list.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.received += bytes.len();
        if self.received > MAX_LIST_BYTES {
            self.error = Some(LONG_LIST);
        }
        for byte in bytes {
            self.error.map_or(Ok(()), Err)?;
            self.push_byte(*byte);
        }
        self.error.map_or(Ok(()), Err)
    }

    /// Returns why it receives no more.
    pub(crate) fn error(&self) -> Option<Unreadable> {
        self.error
    }

    /// Returns the kept bytes, without the beginning of a row that has no end.
    pub(crate) fn kept(self) -> Vec<u8> {
        self.kept
    }

    fn push_byte(&mut self, byte: u8) {
        if self.is_in_text {
            let is_end = byte == b'"' && !self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            if is_end {
                self.is_in_text = false;
                self.end_text();
            }
            return self.copy(byte);
        }
        match byte {
            b'"' => {
                self.is_in_text = true;
                self.copy(byte);
                if let Some(row) = &mut self.row {
                    row.text_start = row.bytes.len();
                }
            }
            b'{' | b'[' => {
                if self.row.is_none() && byte == b'{' && self.is_at_row() {
                    self.row = Some(Row { depth: self.depth, ..Row::default() });
                }
                if let Some(open) = self.open.get_mut(self.depth) {
                    *open = byte;
                }
                self.depth += 1;
                self.copy(byte);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.copy(byte);
                if let Some(row) = self.row.take_if(|row| row.depth >= self.depth) {
                    let is_kept = row.is_wanted && row.bytes.len() <= MAX_ROW_BYTES;
                    let is_in_list = self.depth.checked_sub(1).and_then(|depth| self.open.get(depth)) == Some(&b'[');
                    let replacement: &[u8] = if is_in_list { b"0" } else { b"null" };
                    self.keep(if is_kept { &row.bytes } else { replacement });
                }
            }
            byte => self.copy(byte),
        }
    }

    /// Whether an object here is a row: `{"…":{"…":[{`, `{"…":[{` or `{"…":{"…":{`.
    fn is_at_row(&self) -> bool {
        self.depth <= self.open.len() && [&b"{{["[..], b"{[", b"{{"].contains(&&self.open[..self.depth])
    }

    fn end_text(&mut self) {
        let Some(row) = &mut self.row else { return };
        let text = row.bytes.get(row.text_start..).and_then(|text| str::from_utf8(text).ok());
        row.is_wanted |= text.is_some_and(|text| self.wanted.contains(text));
    }

    /// Copies a byte to the row, or out of rows to what is kept.
    fn copy(&mut self, byte: u8) {
        match &mut self.row {
            // One byte more shows that it is too long.
            Some(row) if row.bytes.len() > MAX_ROW_BYTES => {}
            Some(row) => row.bytes.push(byte),
            None => self.keep(&[byte]),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.kept.len() + bytes.len() > self.max_bytes {
            self.error = Some(TOO_LARGE);
        } else {
            self.kept.extend(bytes);
        }
    }
}

/// Receives what a decoder writes.
impl Write for RowFilter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body::SINGLE;

    fn wanted(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// Filters a list that is received in pieces of this many bytes.
    fn filtered(list: &[u8], piece: usize, wanted: &BTreeSet<String>) -> Result<String, Unreadable> {
        let mut filter = RowFilter::new(wanted, SINGLE);
        list.chunks(piece).try_for_each(|piece| filter.push(piece))?;
        Ok(String::from_utf8_lossy(&filter.kept()).into_owned())
    }

    #[test]
    fn a_row_without_a_wanted_identifier_is_replaced() {
        let wanted = wanted(&["w1", "w2"]);
        for (list, kept) in [
            (
                r#"{"tasks":{"task":[{"a":{"id":"w1"}},{"a":{"id":"w3"}}]}}"#,
                r#"{"tasks":{"task":[{"a":{"id":"w1"}},0]}}"#,
            ),
            (r#" { "tasks" : [ {"id":"w3"} , {"id":"w2"} ] } "#, r#" { "tasks" : [ 0 , {"id":"w2"} ] } "#),
            (r#"{"tasks":{"task":{"id":"w1"}}}"#, r#"{"tasks":{"task":{"id":"w1"}}}"#),
            (r#"{"tasks":{"task":{"id":"w3"}}}"#, r#"{"tasks":{"task":null}}"#),
            (r#"{"tasks":{}}"#, r#"{"tasks":{}}"#),
            (r#"{"tasks":{"task":[null,7,"w3",["w3",{}]]}}"#, r#"{"tasks":{"task":[null,7,"w3",["w3",{}]]}}"#),
            (r#"{"tasks":[{"n":"} ] \" { [","id":"w3"},{}]}"#, r#"{"tasks":[0,0]}"#),
            (r#"{"tasks":[{"n":"\\","id":"w1"}]}"#, r#"{"tasks":[{"n":"\\","id":"w1"}]}"#),
            // A part of a text is no identifier.
            (r#"{"tasks":[{"id":"w11"},{"id":"a \"w1\""},{"id":"w"}]}"#, r#"{"tasks":[0,0,0]}"#),
            (r#"{"error":{"code":"1"}}"#, r#"{"error":{"code":"1"}}"#),
            // Invalid JSON stays so.
            (r#"{"tasks":[{"id":"w1"}"#, r#"{"tasks":[{"id":"w1"}"#),
            (r#"{"tasks":[{"id":"w1""#, r#"{"tasks":["#),
            ("]}{", "]}{"),
            ("<html>", "<html>"),
            ("", ""),
        ] {
            for piece in [1, 3, 1000] {
                assert_eq!(filtered(list.as_bytes(), piece, &wanted).as_deref(), Ok(kept), "{piece}");
            }
        }
    }

    #[test]
    fn a_list_and_its_rows_are_kept_within_limits() {
        let wanted = wanted(&["w1"]);
        let long = json!({ "tasks": [{ "id": "w1", "n": "n".repeat(MAX_ROW_BYTES) }, { "id": "w1" }] }).to_string();
        assert_eq!(filtered(long.as_bytes(), 1000, &wanted).as_deref(), Ok(r#"{"tasks":[0,{"id":"w1"}]}"#));
        for list in [" ".repeat(SINGLE + 1), "[".repeat(SINGLE + 1), format!("\"{}", "w1".repeat(SINGLE))] {
            assert_eq!(filtered(list.as_bytes(), 1000, &wanted), Err(TOO_LARGE));
        }
        let rows = format!(r#"{{"tasks":[{}]}}"#, r#"{"id":"w1"},"#.repeat(SINGLE / 10));
        assert_eq!(filtered(rows.as_bytes(), 1000, &wanted), Err(TOO_LARGE));
        let endless = format!(r#"{{"tasks":[{{"n":"{}"#, "n".repeat(MAX_LIST_BYTES));
        assert_eq!(filtered(endless.as_bytes(), 1000, &wanted), Err(LONG_LIST));
    }

    #[test]
    fn twenty_thousand_tasks_take_forty_kilobytes() -> Result<(), Unreadable> {
        let task = |number: u32| {
            json!({ "extractRefresh": { "id": format!("5998aaaf-5998-4998-a998-{number:012}"), "priority": 50,
                "consecutiveFailedCount": 0, "type": "RefreshExtractTask", "schedule": { "frequency": "Daily",
                    "nextRunAt": "2026-05-21T08:00:00Z", "frequencyDetails": { "start": "04:00:00", "intervals": {
                        "interval": [{ "hours": "24" }, { "weekDay": "Monday" }] } } },
                "workbook": { "id": format!("00000000-0000-4000-8000-{number:012}") } } })
        };
        let list = json!({ "tasks": { "task": (0..20_000).map(task).collect::<Vec<_>>() } }).to_string();
        assert!((7_000_000..7_500_000).contains(&list.len()), "{}", list.len());
        let last = wanted(&["00000000-0000-4000-8000-000000019999"]);
        let kept = filtered(list.as_bytes(), 16 * 1024, &last)?;
        assert!(kept.len() < 41_000, "{}", kept.len());
        let kept: Value = serde_json::from_str(&kept).map_err(|_| "it is not JSON")?;
        assert_eq!(kept["tasks"]["task"][19_999], task(19_999));
        Ok(())
    }
}
