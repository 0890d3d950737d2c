//! Rules for which publishes SNS refuses, and which subscriptions get an accepted message.
//!
//! Sources: the API reference of `Publish`, and "Message attributes", "Message filtering" and "Raw message delivery" of the
//! developer guide.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::{alerts::message::AlertMessage, events::cloud_event::EventMessage};
use url::form_urlencoded;

/// The most bytes of a message with its attributes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The number of characters at which a subject is too long.
const TOO_LONG_SUBJECT: usize = 100;

/// The most characters of an attribute's name.
const MAX_NAME_CHARACTERS: usize = 256;

/// The most characters of a message group, and of a deduplication id.
const MAX_ID_CHARACTERS: usize = 128;

/// The most attributes that SQS accepts.
const MAX_SQS_ATTRIBUTES: usize = 10;

/// The last Unicode character that an attribute's value may contain.
const MAX_CHARACTER: char = '\u{FFFF}';

const DATA_TYPES: [&str; 4] = ["String", "String.Array", "Number", "Binary"];

/// A message attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its data type.
    pub data_type: String,
    /// Its value.
    pub value: String,
}

/// A call of `Publish`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// Whether the topic is a FIFO topic.
    pub is_fifo: bool,
    /// The message.
    pub message: String,
    /// Its subject.
    pub subject: Option<String>,
    /// Whether the message has a text for each protocol.
    pub is_structured: bool,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Its message group.
    pub group: Option<String>,
    /// Its deduplication id.
    pub deduplication_id: Option<String>,
}

/// Why SNS refuses a publish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The error's code.
    pub code: &'static str,
    /// SNS's message.
    pub message: String,
}

/// The subscriptions that get an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whether subscriptions with a filter policy on attributes can get it. For SNS the attributes are JSON, and one bad
    /// value makes all of them unreadable.
    pub passes_attribute_filters: bool,
    /// Whether SQS accepts it with its attributes, as raw delivery sends it.
    pub fits_raw_sqs: bool,
}

impl Delivery {
    /// Whether all subscriptions get it.
    pub fn is_whole(self) -> bool {
        self.passes_attribute_filters && self.fits_raw_sqs
    }
}

impl From<&EventMessage> for Publish {
    /// As on a FIFO topic, which has more rules.
    fn from(EventMessage { id, body, attributes, group }: &EventMessage) -> Self {
        let attributes = attributes.iter().map(|(name, value)| Attribute {
            name: (*name).to_owned(),
            data_type: EventMessage::ATTRIBUTE_TYPE.to_owned(),
            value: value.clone(),
        });
        Self {
            is_fifo: true,
            message: body.clone(),
            attributes: attributes.collect(),
            group: Some(group.clone()),
            deduplication_id: Some(id.to_string()),
            ..Self::default()
        }
    }
}

impl From<&AlertMessage> for Publish {
    fn from(AlertMessage { subject, body }: &AlertMessage) -> Self {
        Self { message: body.clone(), subject: Some(subject.clone()), is_structured: true, ..Self::default() }
    }
}

impl Publish {
    /// Reads a form of the query protocol. Returns `None` if it is another call.
    ///
    /// # Errors
    ///
    /// The form has a parameter without a rule here, so that no publish evades the rules.
    pub fn from_form(body: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut publish = Self::default();
        let mut attributes = BTreeMap::<u32, Attribute>::new();
        let pairs: Vec<_> = form_urlencoded::parse(body).collect();
        match pairs.iter().find_map(|(name, value)| (name == "Action").then_some(&**value)) {
            Some("Publish") => {}
            Some("PublishBatch") => return Err(refusal("InvalidAction", "PublishBatch is not known here")),
            _ => return Ok(None),
        }
        for (name, value) in &pairs {
            let value = value.to_string();
            match &**name {
                "Action" | "Version" => {}
                "TopicArn" => publish.is_fifo = value.ends_with(".fifo"),
                "Message" => publish.message = value,
                "Subject" => publish.subject = Some(value),
                "MessageStructure" if value == "json" => publish.is_structured = true,
                "MessageStructure" => return Err(invalid(format!("MessageStructure: {value}"))),
                "MessageGroupId" => publish.group = Some(value),
                "MessageDeduplicationId" => publish.deduplication_id = Some(value),
                name => {
                    let entry = name.strip_prefix(ATTRIBUTES).and_then(|entry| entry.split_once('.'));
                    let entry = entry.and_then(|(index, member)| Some((index.parse().ok()?, member)));
                    let Some((index, member)) = entry else { return Err(invalid(format!("{name} is not known here"))) };
                    let attribute = attributes.entry(index).or_default();
                    match member {
                        "Name" => attribute.name = value,
                        "Value.DataType" => attribute.data_type = value,
                        "Value.StringValue" | "Value.BinaryValue" => attribute.value = value,
                        _ => return Err(invalid(format!("{name} is not known here"))),
                    }
                }
            }
        }
        publish.attributes = attributes.into_values().collect();
        Ok(Some(publish))
    }

    /// Returns which subscriptions get the message.
    ///
    /// # Errors
    ///
    /// SNS refuses it.
    pub fn accept(&self) -> Result<Delivery, Refusal> {
        self.check_message()?;
        self.check_subject()?;
        self.attributes.iter().try_for_each(Attribute::check)?;
        self.check_ids()?;
        let attributes = &self.attributes;
        // Values of the other types are valid JSON.
        let mut texts = attributes.iter().filter(|attribute| attribute.data_type == "String");
        Ok(Delivery {
            passes_attribute_filters: texts.all(|text| text.value.chars().all(is_plain_in_json)),
            fits_raw_sqs: attributes.len() <= MAX_SQS_ATTRIBUTES
                && attributes.iter().all(|attribute| attribute.value.chars().all(is_accepted_by_sqs)),
        })
    }

    fn check_message(&self) -> Result<(), Refusal> {
        if self.message.is_empty() {
            return Err(invalid("Empty message".to_owned()));
        }
        let attributes: usize = self.attributes.iter().map(Attribute::size_bytes).sum();
        if self.message.len() + attributes > MAX_MESSAGE_BYTES {
            return Err(invalid("Message too long".to_owned()));
        }
        if !self.is_structured {
            return Ok(());
        }
        let texts: Value = serde_json::from_str(&self.message)
            .map_err(|error| invalid(format!("Message Structure - JSON message body failed to parse: {error}")))?;
        let is_text = |text: &Value| text.as_str().is_some_and(|text| !text.is_empty());
        if !is_text(&texts["default"]) {
            return Err(invalid("Message Structure - No default entry in JSON message body".to_owned()));
        }
        if !texts.as_object().is_some_and(|texts| texts.values().all(is_text)) {
            return Err(invalid("Message Structure - an entry is no text".to_owned()));
        }
        Ok(())
    }

    fn check_subject(&self) -> Result<(), Refusal> {
        let Some(subject) = &self.subject else { return Ok(()) };
        let begins_well = subject.starts_with(|first: char| first.is_ascii_graphic());
        let is_printable = subject.chars().all(|character| (' '..='~').contains(&character));
        if !begins_well || !is_printable || subject.chars().count() >= TOO_LONG_SUBJECT {
            return Err(invalid("Subject".to_owned()));
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<(), Refusal> {
        if !self.is_fifo {
            return Ok(());
        }
        for (name, id) in [("MessageGroupId", &self.group), ("MessageDeduplicationId", &self.deduplication_id)] {
            let is_valid = |id: &String| {
                (1..=MAX_ID_CHARACTERS).contains(&id.len()) && id.chars().all(|character| character.is_ascii_graphic())
            };
            if !id.as_ref().is_some_and(is_valid) {
                return Err(invalid(format!("The {name} parameter is required for FIFO topics, and {id:?} is none")));
            }
        }
        Ok(())
    }
}

/// Prefix of the names of the attributes' parameters.
pub(crate) const ATTRIBUTES: &str = "MessageAttributes.entry.";

impl Attribute {
    fn size_bytes(&self) -> usize {
        self.name.len() + self.data_type.len() + self.value.len()
    }

    fn check(&self) -> Result<(), Refusal> {
        let Self { name, data_type, value } = self;
        let refuse = |why: &str| {
            Err(refusal(
                "InvalidParameterValue",
                &format!("The message attribute {name:?} {why}: {value:?} ({data_type})"),
            ))
        };
        let lower = name.to_ascii_lowercase();
        let is_name = (1..=MAX_NAME_CHARACTERS).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !name.contains("..")
            && !lower.starts_with("aws.")
            && !lower.starts_with("amazon.");
        if !is_name {
            return refuse("has an invalid name");
        }
        if !DATA_TYPES.contains(&&**data_type) {
            return refuse("has an invalid type");
        }
        if value.is_empty() {
            return refuse("has an empty value");
        }
        if value.chars().any(|character| character > MAX_CHARACTER) {
            return refuse("has an invalid value");
        }
        if data_type == "Number" && value.parse::<f64>().is_err() {
            return refuse("has a value that is no number");
        }
        if data_type == "String.Array" && !serde_json::from_str::<Value>(value).is_ok_and(|value| value.is_array()) {
            return refuse("has a value that is no array");
        }
        Ok(())
    }
}

/// Whether a character can stand in a JSON string as it is.
fn is_plain_in_json(character: char) -> bool {
    !character.is_control() && character != '"' && character != '\\'
}

/// Whether SQS accepts a character (Amazon SQS API reference, `SendMessage`).
fn is_accepted_by_sqs(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}')
}

fn invalid(message: String) -> Refusal {
    Refusal { code: "InvalidParameter", message: format!("Invalid parameter: {message}") }
}

fn refusal(code: &'static str, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> Publish {
        attributes(&[("name", "String", value)])
    }

    fn attributes(attributes: &[(&str, &str, &str)]) -> Publish {
        let attributes = attributes.iter().map(|(name, data_type, value)| Attribute {
            name: (*name).to_owned(),
            data_type: (*data_type).to_owned(),
            value: (*value).to_owned(),
        });
        Publish { message: "{}".to_owned(), attributes: attributes.collect(), ..Publish::default() }
    }

    fn subject(subject: &str) -> Publish {
        Publish { message: "text".to_owned(), subject: Some(subject.to_owned()), ..Publish::default() }
    }

    fn structured(message: &str) -> Publish {
        Publish { message: message.to_owned(), is_structured: true, ..Publish::default() }
    }

    fn fifo(group: &str, deduplication_id: &str) -> Publish {
        let id = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
        Publish { is_fifo: true, group: id(group), deduplication_id: id(deduplication_id), ..with("value") }
    }

    #[test]
    fn a_publish_that_sns_refuses_is_refused() {
        let long = |characters| "x".repeat(characters);
        let refused = [
            ("InvalidParameterValue", with("Sales 📈")),
            ("InvalidParameterValue", with("\u{10000}")),
            ("InvalidParameterValue", with("")),
            ("InvalidParameterValue", attributes(&[("two words", "String", "value")])),
            ("InvalidParameterValue", attributes(&[("", "String", "value")])),
            ("InvalidParameterValue", attributes(&[(".dot", "String", "value")])),
            ("InvalidParameterValue", attributes(&[("AWS.name", "String", "value")])),
            ("InvalidParameterValue", attributes(&[(&long(257), "String", "value")])),
            ("InvalidParameterValue", attributes(&[("name", "Text", "value")])),
            ("InvalidParameterValue", attributes(&[("name", "Number", "many")])),
            ("InvalidParameterValue", attributes(&[("name", "String.Array", "value")])),
            ("InvalidParameter", Publish::default()),
            ("InvalidParameter", Publish { message: long(256 * 1024 - 4 - 6 - 5 + 1), ..with("value") }),
            ("InvalidParameter", subject("")),
            ("InvalidParameter", subject(" Sales")),
            ("InvalidParameter", subject("Umsätze")),
            ("InvalidParameter", subject("two\nlines")),
            ("InvalidParameter", subject(&long(100))),
            ("InvalidParameter", structured("text")),
            ("InvalidParameter", structured("{}")),
            ("InvalidParameter", structured(r#"{"email":"text"}"#)),
            ("InvalidParameter", structured(r#"{"default":""}"#)),
            ("InvalidParameter", structured(r#"{"default":"text","sqs":{}}"#)),
            ("InvalidParameter", fifo("", "id")),
            ("InvalidParameter", fifo("group", "")),
            ("InvalidParameter", fifo(&long(129), "id")),
            ("InvalidParameter", fifo("group", &long(129))),
            ("InvalidParameter", fifo("two words", "id")),
        ];
        for (code, publish) in refused {
            assert_eq!(publish.accept().map_err(|refusal| refusal.code), Err(code), "{publish:?}");
        }
    }

    #[test]
    fn an_accepted_message_reaches_the_same_subscriptions_as_on_sns() {
        let all = Delivery { passes_attribute_filters: true, fits_raw_sqs: true };
        let no_filters = Delivery { passes_attribute_filters: false, ..all };
        let no_sqs = Delivery { fits_raw_sqs: false, ..all };
        let none = Delivery { passes_attribute_filters: false, fits_raw_sqs: false };
        let names: Vec<_> = (0..11).map(|number| format!("name-{number}")).collect();
        let many =
            |count| attributes(&names.iter().take(count).map(|name| (&**name, "String", "value")).collect::<Vec<_>>());
        for (publish, expected) in [
            (with("Umsätze, 売上, \u{fffd}"), all),
            (attributes(&[("n", "Number", "1.5"), ("list", "String.Array", r#"["a"]"#)]), all),
            (Publish { message: "x".repeat(256 * 1024 - 4 - 6 - 5), ..with("value") }, all),
            (subject(&"x".repeat(99)), all),
            (structured(r#"{"default":"text"}"#), all),
            (fifo("group", &"x".repeat(128)), all),
            (with("Sales \"North\""), no_filters),
            (with("C:\\extracts"), no_filters),
            (with("two\nlines"), no_filters),
            (with("\u{7f}"), no_filters),
            (with("\u{ffff}"), no_sqs),
            (with("\u{1b}"), none),
            (many(10), all),
            (many(11), no_sqs),
        ] {
            assert_eq!(publish.accept(), Ok(expected), "{publish:?}");
        }
    }

    #[test]
    fn a_form_is_read_completely_or_refused() {
        let form = "Action=Publish&Version=2010-03-31&TopicArn=arn%3Aaws%3Asns%3Aus-east-1%3A1%3Aevents.fifo&Message=%7B%7D\
            &Subject=Hello&MessageAttributes.entry.2.Name=b&MessageAttributes.entry.2.Value.DataType=String\
            &MessageAttributes.entry.2.Value.StringValue=two+words&MessageAttributes.entry.1.Name=a\
            &MessageAttributes.entry.1.Value.DataType=Number&MessageAttributes.entry.1.Value.StringValue=1\
            &MessageGroupId=group&MessageDeduplicationId=id";
        let publish = Publish {
            subject: Some("Hello".to_owned()),
            ..Publish {
                attributes: attributes(&[("a", "Number", "1"), ("b", "String", "two words")]).attributes,
                ..fifo("group", "id")
            }
        };
        let read = |form: &str| Publish::from_form(form.as_bytes());
        assert_eq!(read(form), Ok(Some(publish)));
        assert_eq!(
            read(&format!("{form}&MessageStructure=json")).map(|it| it.map(|it| it.is_structured)),
            Ok(Some(true))
        );
        for other in ["Action=CreateTopic&Name=events", "", "{}"] {
            assert_eq!(read(other), Ok(None));
        }
        for odd in ["Action=PublishBatch", &format!("{form}&TargetArn=x"), &format!("{form}&MessageStructure=xml")] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }
}
