//! Files of sites: a CSV file with a header, or a JSON list of site entries with their names.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use csv::{ReaderBuilder, Trim};
use serde_json::{Map, Value, json};
use shared::sites::address::SiteAddress;

/// The columns of a CSV file, which are also the members in a JSON list.
pub const COLUMNS: &str = "name,server,site,token_name,token_secret,events,token_expires";

/// A site in a file.
#[derive(Debug)]
pub struct Row {
    /// Where it is in the file, such as `line 2`.
    pub place: String,
    /// The name that it gives the site; empty if there is none.
    pub name: String,
    /// The members of the entry. A [`Debug`] output of a row leaves them out, since one is a secret.
    pub members: Members,
}

/// Members of an entry.
pub struct Members(pub Map<String, Value>);

impl std::fmt::Debug for Members {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Members")
    }
}

/// Reads the sites in a file.
///
/// # Errors
///
/// The file cannot be read, or is neither a CSV file with a header nor a JSON list.
pub fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let path_text = path.display();
    let text = fs::read(path).with_context(|| format!("the file {path_text} cannot be read. Nothing was stored"))?;
    let text = String::from_utf8(text).ok().with_context(|| {
        format!("the file {path_text} is not encoded in UTF-8. Nothing was stored. Fix: save it as \"CSV UTF-8\"")
    })?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let rows = if text.starts_with(['[', '{']) { of_json(text) } else { of_csv(text) };
    let rows = rows.with_context(|| {
        format!(
            "the file {path_text} has no sites. Nothing was stored. Fix: write a CSV file with the header {COLUMNS}, or a \
             JSON list of objects with these members"
        )
    })?;
    ensure!(!rows.is_empty(), "the file {path_text} has no sites. Nothing was stored");
    Ok(rows)
}

fn of_json(text: &str) -> anyhow::Result<Vec<Row>> {
    // The parser's error could repeat a part of the text.
    let list = serde_json::from_str::<Vec<Map<_, _>>>(text).ok().context("it is not a JSON list of objects")?;
    let rows = list.into_iter().zip(1..).map(|(mut members, number)| {
        let name = members.remove("name").and_then(|name| name.as_str().map(str::to_owned));
        Row { place: format!("entry {number}"), name: name.unwrap_or_default(), members: Members(members) }
    });
    Ok(rows.collect())
}

fn of_csv(text: &str) -> anyhow::Result<Vec<Row>> {
    let header = text.lines().next().unwrap_or_default();
    // Spreadsheets write semicolons where a comma is the decimal sign.
    let delimiter = [b'\t', b';'].into_iter().find(|delimiter| header.as_bytes().contains(delimiter));
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter.unwrap_or(b','))
        .trim(Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes());
    let header: Vec<_> = reader.headers()?.iter().map(str::to_ascii_lowercase).collect();
    ensure!(header.iter().any(|column| column == "name"), "its first line is not a header with a column name");
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.ok().context("a line cannot be read")?;
        let line = record.position().map_or(0, |position| line_at(text, position.byte()));
        if record.len() > header.len() {
            bail!("line {line} has {} values for {} columns", record.len(), header.len());
        }
        let cells = header.iter().map(String::as_str).zip(record.iter()).filter(|(_, cell)| !cell.is_empty());
        let mut members: Map<_, _> = cells.map(|(column, cell)| (column.to_owned(), member(column, cell))).collect();
        if members.is_empty() {
            continue;
        }
        let name = members.remove("name").and_then(|name| name.as_str().map(str::to_owned));
        // An empty cell is the Default site, unless the address names another.
        if members.contains_key("server") && header.iter().any(|column| column == "site") {
            let server = members["server"].as_str().and_then(|text| SiteAddress::parse(text).ok());
            let site = server.and_then(|server| server.content_url).unwrap_or_default();
            members.entry("site").or_insert(site.into());
        }
        rows.push(Row { place: format!("line {line}"), name: name.unwrap_or_default(), members: Members(members) });
    }
    Ok(rows)
}

/// Returns the number of the line of a record that begins at a byte, or after the line ends there.
fn line_at(text: &str, byte: u64) -> usize {
    let start = usize::try_from(byte).ok().and_then(|start| text.get(start..)).unwrap_or_default();
    let record = start.trim_start_matches(['\r', '\n']);
    1 + text[..text.len() - record.len()].matches('\n').count()
}

/// Converts a cell to the member of an entry.
fn member(column: &str, cell: &str) -> Value {
    match column {
        "events" => json!(cell.split([' ', ',', ';']).filter(|event| !event.is_empty()).collect::<Vec<_>>()),
        _ => cell.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> anyhow::Result<Vec<(String, String, Value)>> {
        let rows = if text.starts_with('[') { of_json(text)? } else { of_csv(text)? };
        Ok(rows.into_iter().map(|row| (row.place, row.name, row.members.0.into())).collect())
    }

    #[test]
    fn the_files_of_spreadsheets_and_programs_are_read() -> anyhow::Result<()> {
        let row = |place: &str, name: &str, members| (place.to_owned(), name.to_owned(), members);
        let [finance, all] = [
            json!({ "server": "tableau.example", "site": "fin", "token_secret": "a,b\"c" }),
            json!({ "server": "tableau.example", "site": "", "events": ["ViewDeleted", "UserDeleted"] }),
        ];
        for text in [
            "name,server,site,token_secret,events\nfinance, tableau.example ,fin,\"a,b\"\"c\",\n\n\
             all,tableau.example,,,ViewDeleted UserDeleted",
            "Name;Server;Site;Token_Secret;Events\r\nfinance;tableau.example;fin;\"a,b\"\"c\"\r\n\r\n\
             all;tableau.example;;;ViewDeleted,UserDeleted\r\n",
            "server\tname\tsite\ttoken_secret\tevents\ntableau.example\tfinance\tfin\t\"a,b\"\"c\"\n\t\t\t\t\n\
             tableau.example\tall\t\t\tViewDeleted;UserDeleted",
        ] {
            let expected = [row("line 2", "finance", finance.clone()), row("line 4", "all", all.clone())];
            assert_eq!(rows(text)?, expected, "{text}");
        }
        // An address from a browser names the site, so that its cell stays empty.
        let members = json!({ "server": "tableau.example/#/site/fin", "site": "fin" });
        assert_eq!(rows("name,server,site\nfinance,tableau.example/#/site/fin,")?, [row("line 2", "finance", members)]);
        let list = r#"[{ "name": "finance", "site": "fin", "events": null }, { "site": "" }]"#;
        let expected = [
            row("entry 1", "finance", json!({ "site": "fin", "events": null })),
            row("entry 2", "", json!({ "site": "" })),
        ];
        assert_eq!(rows(list)?, expected);
        assert!(rows("name,site\nfinance,fin,more").is_err());
        Ok(())
    }
}
