//! Converts Tableau's XML from and to JSON: attributes are members, elements are objects.

use anyhow::{Context, bail, ensure};
use quick_xml::{
    Reader, Writer, XmlVersion,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event},
};
use serde_json::{Map, Value};

/// Members that XML writes as elements with a text.
const TEXT_ELEMENTS: [&str; 6] = ["body", "detail", "notes", "productVersion", "restApiVersion", "summary"];

/// Reads a request. Returns the root element's children.
pub(crate) fn read(text: &str) -> anyhow::Result<Value> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<(String, Map<String, Value>)> = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Start(element) => open.push(start(&element)?),
            Event::Empty(element) => {
                let (name, members) = start(&element)?;
                let (_, parent) = open.last_mut().context("there is more than a root element")?;
                add(parent, name, Value::Object(members));
            }
            Event::End(_) => {
                let (name, members) = open.pop().context("an element ends that did not start")?;
                match open.last_mut() {
                    Some((_, parent)) => add(parent, name, Value::Object(members)),
                    None => {
                        ensure!(name == "tsRequest", "the root element is not tsRequest");
                        return Ok(Value::Object(members));
                    }
                }
            }
            Event::Text(text) => ensure!(text.trim_ascii().is_empty(), "there is text between the elements"),
            Event::Decl(_) | Event::Comment(_) => {}
            Event::Eof => bail!("the document ends too early"),
            _ => bail!("there is something else than elements"),
        }
    }
}

fn start(element: &BytesStart<'_>) -> anyhow::Result<(String, Map<String, Value>)> {
    let name = element.name().as_ref().to_owned();
    let mut members = Map::new();
    for attribute in element.attributes() {
        let attribute = attribute?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0)?.into_owned();
        members.insert(attribute.key.as_ref().to_owned(), value.into());
    }
    Ok((name, members))
}

/// Adds a child. A repeated element makes a list.
fn add(parent: &mut Map<String, Value>, name: String, child: Value) {
    match parent.get_mut(&name) {
        None => {
            parent.insert(name, child);
        }
        Some(Value::Array(children)) => children.push(child),
        Some(first) => *first = Value::Array(vec![first.take(), child]),
    }
}

/// Writes an answer.
pub(crate) fn write(answer: &Value) -> anyhow::Result<String> {
    let mut writer = Writer::new(Vec::new());
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let root = BytesStart::new("tsResponse").with_attributes([("xmlns", "http://tableau.com/api")]);
    writer.write_event(Event::Start(root))?;
    write_members(&mut writer, answer)?;
    writer.write_event(Event::End(BytesEnd::new("tsResponse")))?;
    Ok(String::from_utf8(writer.into_inner())?)
}

fn write_members(writer: &mut Writer<Vec<u8>>, members: &Value) -> anyhow::Result<()> {
    for (name, value) in members.as_object().into_iter().flatten() {
        match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| write_element(writer, name, element))?,
            Value::Object(_) => write_element(writer, name, value)?,
            _ if TEXT_ELEMENTS.contains(&name.as_str()) => write_element(writer, name, value)?,
            _ => {}
        }
    }
    Ok(())
}

fn write_element(writer: &mut Writer<Vec<u8>>, name: &str, value: &Value) -> anyhow::Result<()> {
    let mut start = BytesStart::new(name);
    for (name, value) in value.as_object().into_iter().flatten() {
        if let Some(value) = scalar(value).filter(|_| name != "value" && !TEXT_ELEMENTS.contains(&name.as_str())) {
            start.push_attribute((name.as_str(), value.as_str()));
        }
    }
    writer.write_event(Event::Start(start))?;
    if let Some(text) = scalar(value).or_else(|| scalar(&value["value"])) {
        writer.write_event(Event::Text(BytesText::new(&text)))?;
    }
    write_members(writer, value)?;
    writer.write_event(Event::End(BytesEnd::new(name)))?;
    Ok(())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_in_xml_is_the_request_in_json() -> anyhow::Result<()> {
        let xml = r#"<?xml version="1.0"?><tsRequest><webhook name="a &amp; b"><webhook-source>
            <webhook-source-event-workbook-created/></webhook-source><webhook-destination>
            <webhook-destination-http method="POST" url="https://r.example/?a=1&amp;b=2"/></webhook-destination>
            </webhook></tsRequest>"#;
        let expected = json!({ "webhook": { "name": "a & b",
            "webhook-source": { "webhook-source-event-workbook-created": {} },
            "webhook-destination": { "webhook-destination-http": {
                "method": "POST", "url": "https://r.example/?a=1&b=2" } } } });
        assert_eq!(read(xml)?, expected);
        for bad in ["", "<a/>", "<tsRequest>", "<tsRequest>text</tsRequest>", "<other></other>", "{}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn an_answer_is_written_with_attributes_elements_and_texts() -> anyhow::Result<()> {
        let answer = json!({ "webhooks": { "webhook": [{ "id": "1", "isEnabled": true, "owner": { "id": "2" } }] },
            "serverInfo": { "productVersion": { "value": "2026.1", "build": "b" }, "restApiVersion": "3.27" } });
        assert_eq!(
            write(&answer)?.split_once("tableau.com/api\">").map(|(_, members)| members),
            Some(
                "<serverInfo><productVersion build=\"b\">2026.1</productVersion><restApiVersion>3.27</restApiVersion>\
                 </serverInfo><webhooks><webhook id=\"1\" isEnabled=\"true\"><owner id=\"2\"></owner></webhook>\
                 </webhooks></tsResponse>"
            )
        );
        Ok(())
    }
}
