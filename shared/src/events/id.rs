//! Identifiers of events, by which subscribers recognize a repetition.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifier of an event. Equal bodies delivered to one registration have equal identifiers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EventId([u8; 16]);

/// The text is not an event's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's identifier consists of 32 hexadecimal digits")]
pub struct InvalidEventId;

impl EventId {
    /// Returns the digest of some parts, in their order.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let digest = parts.into_iter().fold(Sha256::new(), |digest, part| {
            // The length separates the parts.
            digest.chain_update((part.len() as u64).to_be_bytes()).chain_update(part)
        });
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidEventId);
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| InvalidEventId)?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_the_form_in_which_it_is_written_only() {
        let written = "00ff88b30a6413cc62746011b6c37e60";
        assert_eq!(written.parse::<EventId>().map(|id| id.to_string()), Ok(written.to_owned()));
        for bad in
            ["", "00", &written[1..], &format!("{written}0"), &written.replace('f', "g"), &written.replace("00", "+0")]
        {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad}");
        }
    }
}
