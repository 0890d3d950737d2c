//! Texts in the Atlassian Document Format, which Jira takes for descriptions and comments.

use serde_json::{Value, json};

/// Returns a document with one paragraph for each line. A text node has no markup, so nothing in a line becomes a mention or
/// a link.
pub(crate) fn document(text: &str) -> Value {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let paragraphs = lines.map(|line| json!({ "type": "paragraph", "content": [{ "type": "text", "text": line }] }));
    json!({ "version": 1, "type": "doc", "content": paragraphs.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_paragraph_and_none_is_empty() {
        let paragraph = |text| json!({ "type": "paragraph", "content": [{ "type": "text", "text": text }] });
        let expected = json!({ "version": 1, "type": "doc", "content": [paragraph("a *b*"), paragraph("[c](d)")] });
        assert_eq!(document("a *b*\n\n \n[c](d)\n"), expected);
        assert_eq!(document("")["content"], json!([]));
    }
}
