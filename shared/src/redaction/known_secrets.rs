//! Hides known secrets in a text, also where they are escaped or broken into lines.

use std::{borrow::Cow, collections::HashSet, fmt, ops::Range};

use crate::{
    events::catalogue::Event,
    redaction::{escapes::readings, findings::REDACTED},
    registration::{claim::Registration, keyring::Keyring, signed_url::RegistrationUrl, site_name::SiteName},
};

/// Consecutive bytes of a secret that are hidden. Fewer reveal nothing, and occur in any text.
const PIECE_BYTES: usize = size_of::<u64>();

/// The most bytes of secrets learned from a server: a few sessions, and in half of it two hundred addresses.
const MAX_LEARNED_BYTES: usize = 16 * 1024;

/// A set of secrets, as all their pieces of 8 bytes.
///
/// A piece is found in any case, in any escape ([`readings`]), and across line ends.
///
/// ```
/// use shared::redaction::known_secrets::KnownSecrets;
///
/// let mut secrets = KnownSecrets::default();
/// secrets.add("example/of+a/secret");
/// let answer = "The token example%2Fof%2Ba%2Fsecret is invalid";
/// assert_eq!(secrets.redacted(answer), "The token [redacted] is invalid");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KnownSecrets {
    pieces: HashSet<u64>,
    learned_bytes: usize,
}

impl KnownSecrets {
    /// Returns the signatures of a site's webhooks for the `events` and for all events that Tableau documents.
    pub fn of_addresses(site: &SiteName, events: impl IntoIterator<Item = Event>, keyring: &Keyring) -> Self {
        let mut secrets = Self::default();
        for event in events.into_iter().chain(Event::catalogue()) {
            let registration = Registration { site: site.clone(), event };
            registration.signatures(keyring).for_each(|signature| secrets.add(&signature));
        }
        secrets
    }

    /// Returns the secret of one address: its signature, or all that follows the host if it is not a registration's.
    pub fn of_address(address: &RegistrationUrl) -> Self {
        let mut secrets = Self::default();
        secrets.add(address.signature().unwrap_or_else(|| address.after_host()));
        secrets
    }

    /// Adds a secret. Ignores one that is shorter than a piece.
    pub fn add(&mut self, secret: &str) {
        let mut add = |secret: &str| self.pieces.extend(pieces(secret).map(|(piece, _)| piece));
        add(secret);
        // Form decoding turns a plus sign into a space.
        if secret.contains('+') {
            add(&secret.replace('+', ""));
        }
    }

    /// Adds the token of a session that a server opened.
    pub fn learn_session(&mut self, token: &str) {
        self.learn(token, MAX_LEARNED_BYTES);
    }

    /// Adds the signature of a webhook's address that a server listed, if it is a registration's.
    pub fn learn_address(&mut self, address: &RegistrationUrl) {
        if let Some(signature) = address.signature() {
            self.learn(signature, MAX_LEARNED_BYTES / 2);
        }
    }

    /// Adds a secret that is not known yet, if all learned ones stay within `max_bytes`.
    fn learn(&mut self, secret: &str, max_bytes: usize) {
        if self.learned_bytes + secret.len() <= max_bytes && self.redacted(secret) != REDACTED {
            self.learned_bytes += secret.len();
            self.add(secret);
        }
    }

    /// Returns the text with every piece of a secret hidden, and the rest of its word. Takes linear time.
    pub fn redacted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.pieces.is_empty() || text.len() < PIECE_BYTES {
            return Cow::Borrowed(text);
        }
        let readings = readings(text);
        let places = readings.iter().flat_map(|reading| {
            let found = pieces(reading.text()).filter(|(piece, _)| self.pieces.contains(piece));
            found.map(|(_, place)| reading.origin(place))
        });
        let mut places: Vec<_> = places.collect();
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        places.sort_by_key(|place| place.start);
        let (mut redacted, mut shown_to) = (String::with_capacity(text.len()), 0);
        for Range { start, end } in places {
            if end <= shown_to {
                continue;
            }
            // The rest of a word as well: it may be the secret in an escape that is not decoded.
            let (begins, ends) = (text[start..].starts_with(is_of_word), text[..end].ends_with(is_of_word));
            let before = &text[shown_to..start.max(shown_to)];
            let before = if begins { before.trim_end_matches(is_of_word) } else { before };
            if !before.is_empty() || redacted.is_empty() {
                redacted.push_str(before);
                redacted.push_str(REDACTED);
            }
            let after = if ends { text[end..].trim_start_matches(is_of_word) } else { &text[end..] };
            shown_to = text.len() - after.len();
        }
        redacted.push_str(&text[shown_to..]);
        Cow::Owned(redacted)
    }
}

impl fmt::Debug for KnownSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KnownSecrets([redacted])")
    }
}

/// Returns all pieces of a text with their places: in lower case, without characters that break or escape a line.
fn pieces(text: &str) -> impl Iterator<Item = (u64, Range<usize>)> {
    let shown = text.char_indices().filter(|(_, character)| !is_ignored(*character));
    let bytes = shown.flat_map(|(start, character)| {
        let end = start + character.len_utf8();
        text[start..end].bytes().map(move |byte| (byte.to_ascii_lowercase(), start, end))
    });
    let (mut piece, mut starts, mut count) = (0_u64, [0; PIECE_BYTES], 0_usize);
    bytes.filter_map(move |(byte, start, end)| {
        piece = piece << 8 | u64::from(byte);
        starts[count % PIECE_BYTES] = start;
        count += 1;
        (count >= PIECE_BYTES).then(|| (piece, starts[count % PIECE_BYTES]..end))
    })
}

/// Whether a character may belong to a secret, escaped or not.
fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || "-_+%|".contains(character)
}

/// Whether a character breaks or escapes a line, so that it may stand inside of a quoted secret.
fn is_ignored(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || matches!(character, '\\' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::registration::{keyring::KEY_BYTES, signed_url::ReceiverUrl};

    const TOKEN: &str = "abcDEFgh+jkl/nop==:qrstuvwxyzABCDEFGHIJKLMNOPQRSTUV";

    fn known(secret: &str) -> KnownSecrets {
        let mut secrets = KnownSecrets::default();
        secrets.add(secret);
        secrets
    }

    /// Whether a text shows a piece of a secret.
    fn shows(text: &str, secret: &str) -> bool {
        let bare = |text: &str| text.chars().filter(|it| !is_ignored(*it)).collect::<String>().to_ascii_lowercase();
        let (text, secret) = (bare(text), bare(secret));
        (0..=secret.len() - PIECE_BYTES).any(|start| text.contains(&secret[start..start + PIECE_BYTES]))
    }

    #[test]
    fn a_secret_is_hidden_in_every_escape_and_the_text_around_it_stays() {
        for (spelled, expected) in [
            (TOKEN.to_owned(), "The token [redacted] is wrong"),
            (TOKEN.to_uppercase(), "The token [redacted] is wrong"),
            (TOKEN.replace('/', "\\/"), "The token [redacted] is wrong"),
            (
                TOKEN.replace('/', "%2f").replace('+', "%2B").replace('=', "%3d").replace(':', "%3A"),
                "The token [redacted] is wrong",
            ),
            (TOKEN.replace('=', "\\u003d"), "The token [redacted] is wrong"),
            (TOKEN.replace('=', "%253D"), "The token [redacted] is wrong"),
            (TOKEN.replace('=', "&#61;").replace('/', "&sol;"), "The token [redacted] is wrong"),
            (TOKEN.replace('+', " "), "The token [redacted] is wrong"),
            (TOKEN.replace("uvw", "uv\r\n\tw"), "The token [redacted] is wrong"),
            (TOKEN[10..].to_owned(), "The token [redacted] is wrong"),
            (TOKEN[..10].to_owned(), "The token [redacted] is wrong"),
            (format!("{{\"a\":\"{TOKEN}\"}}"), "The token {\"a\":\"[redacted]\"} is wrong"),
            (TOKEN.replace("STU", "S~0x54~U") + "-X", "The token [redacted]~0x54~UV-X is wrong"),
            (format!("bad:{}u002f{}", &TOKEN[..12], &TOKEN[13..]), "The token bad:[redacted] is wrong"),
            (format!("{TOKEN}, {TOKEN}"), "The token [redacted], [redacted] is wrong"),
            (TOKEN[..7].to_owned(), "The token abcDEFg is wrong"),
            ("50% of &amp; \\u0041 \\".to_owned(), "The token 50% of &amp; \\u0041 \\ is wrong"),
        ] {
            let text = format!("The token {spelled} is wrong");
            assert_eq!(known(TOKEN).redacted(&text), expected, "{text}");
        }
        assert_eq!(known("short").redacted("short"), "short");
        assert_eq!(known(TOKEN).redacted(TOKEN), "[redacted]");
        assert_eq!(format!("{:?}", known(TOKEN)), "KnownSecrets([redacted])");
    }

    #[test]
    fn endless_secrets_of_a_server_take_little_memory_and_sessions_stay_hidden() {
        let mut secrets = known(TOKEN);
        let keyring = Keyring::of([7; KEY_BYTES]);
        let receiver = ReceiverUrl::parse("https://receiver.example/").expect("a receiver");
        for number in 0..10_000 {
            let site = format!("site-{number}").parse().expect("a site");
            let registration = Registration { site, event: "ViewDeleted".parse().expect("an event") };
            secrets.learn_address(&registration.signed_url(&receiver, &keyring));
        }
        secrets.learn_session(&"0123456789abcdef".repeat(100_000));
        for _ in 0..1000 {
            secrets.learn_session("d36c3d73edfe4d51|8bd5d8c2a1f74a8a");
        }
        assert!(secrets.pieces.len() < MAX_LEARNED_BYTES, "{}", secrets.pieces.len());
        assert_eq!(secrets.redacted("d36c3d73edfe4d51|8bd5d8c2a1f74a8a, d36c"), "[redacted], d36c");
        assert_eq!(secrets.redacted(TOKEN), "[redacted]");
    }

    #[test]
    fn every_signature_of_every_key_is_a_secret_of_a_site() {
        let site: SiteName = "marketing".parse().expect("a site");
        let keyring = Keyring::of([1; KEY_BYTES]).with_newest([2; KEY_BYTES]);
        let unknown: Event = "SomethingNew".parse().expect("an event");
        let secrets = KnownSecrets::of_addresses(&site, [unknown.clone()], &keyring);
        for event in Event::catalogue().chain([unknown]) {
            let registration = Registration { site: site.clone(), event };
            let signatures: Vec<_> = registration.signatures(&keyring).collect();
            assert_eq!(signatures.len(), 2);
            assert!(signatures.iter().all(|signature| secrets.redacted(signature) == REDACTED));
        }
        for harmless in ["/hooks/marketing/DatasourceRefreshFailed/", "https://receiver.example/", "fan-ViewDeleted"] {
            assert_eq!(secrets.redacted(harmless), harmless);
        }
    }

    #[test]
    fn the_secret_part_of_an_address_is_hidden_in_a_text() -> Result<(), Box<dyn std::error::Error>> {
        let site = "marketing".parse()?;
        let registration = Registration { site, event: "ViewDeleted".parse()? };
        let receiver = ReceiverUrl::parse("https://receiver.example/").ok_or("a receiver")?;
        let url = registration.signed_url(&receiver, &Keyring::of([7; KEY_BYTES]));
        let path = url.expose().strip_prefix("https://receiver.example").ok_or("a path")?;
        let signature = path.rsplit('/').next().ok_or("a signature")?;
        for base in ["https://RECEIVER.example:443", "https://receiver.example/prod", "http://127.0.0.1:1/hooks/x"] {
            let ours = RegistrationUrl::observed(format!("{base}{path}"));
            assert_eq!(ours.signature(), Some(signature), "{base}");
            let text = format!("POST https://receiver.example{path} for ViewDeleted of marketing");
            let freed =
                "POST https://receiver.example/hooks/marketing/ViewDeleted/[redacted] for ViewDeleted of marketing";
            assert_eq!(KnownSecrets::of_address(&ours).redacted(&text), freed, "{base}");
        }
        let theirs =
            RegistrationUrl::observed("https://theirs.example/services/T01/c2lnbmF0dXJl?key=0123456789".to_owned());
        assert_eq!(theirs.signature(), None);
        let text = "https://THEIRS.example:443/services/T01/c2lnbmF0dXJl?key=0123456789, theirs.example";
        assert_eq!(
            KnownSecrets::of_address(&theirs).redacted(text),
            "https://THEIRS.example:443[redacted], theirs.example"
        );
        for odd in ["", "/", "https://receiver.example", "https://receiver.example/", "x", "a//b/hooks/a/B/c"] {
            let secrets = KnownSecrets::of_address(&RegistrationUrl::observed(odd.to_owned()));
            assert_eq!(secrets.redacted("a / b"), "a / b", "{odd}");
        }
        Ok(())
    }

    /// Escapes a character in one of several ways.
    fn spelled((character, spelling): (char, usize)) -> String {
        let code = u32::from(character);
        match spelling {
            0 => format!("\\u{code:04x}"),
            1 => format!("%{code:02X}"),
            2 => format!("%{code:02x}"),
            3 => format!("&#{code};"),
            4 => format!("&#x{code:X};"),
            5 => format!("%25{code:02x}"),
            6 => format!("{character}\r\n"),
            7 => format!("\\{character}").replace("\\n", "n").replace("\\r", "r").replace("\\t", "t"),
            8 => character.to_uppercase().to_string(),
            _ => character.to_string(),
        }
    }

    proptest! {
        #[test]
        fn no_piece_of_a_secret_is_shown_in_any_escape_or_context(
            secret in "[A-Za-z0-9+/=:_|-]{8,64}", spellings in vec(0_usize..20, 64),
            before in "[ -~\n]{0,20}", after in "[ -~\n]{0,20}",
            cut in (0_usize..60, 0_usize..60),
        ) {
            let start = cut.0.min(secret.len() - PIECE_BYTES);
            let quoted = &secret[start..(start + PIECE_BYTES + cut.1).min(secret.len())];
            let text: String = quoted.chars().zip(spellings).map(spelled).collect();
            let text = format!("{before} {text} {after}");
            // The text around it must not have a piece of the secret.
            prop_assume!(!shows(&format!("{before}{after}"), &secret));
            let redacted = known(&secret).redacted(&text).into_owned();
            for reading in readings(&redacted) {
                prop_assert!(!shows(reading.text(), &secret), "{text} -> {redacted}");
            }
        }

        #[test]
        fn a_text_without_a_secret_stays_as_it_is(text: String, secret in "[A-Za-z0-9]{30,60}") {
            prop_assert_eq!(known(&secret).redacted(&text), &*text);
        }

        #[test]
        fn any_secret_is_hidden_in_any_text(before: String, secret: String, after: String) {
            let text = format!("{before}{secret}{after}");
            let redacted = known(&secret).redacted(&text).into_owned();
            let is_long = pieces(&secret).next().is_some();
            prop_assert!(!is_long || pieces(&redacted).all(|(piece, _)| !known(&secret).pieces.contains(&piece)));
        }
    }
}
