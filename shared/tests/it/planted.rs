//! Texts with planted secrets, in the shapes that drivers and tools print. A list of choices determines each text. The fuzz
//! target `notes` includes this file.

/// A text with a secret.
pub(crate) struct Planted {
    pub(crate) text: String,
    pub(crate) secret: String,
}

/// The length of a piece of a secret that must not be shown.
const PIECE: usize = 8;

/// Names of secrets.
const SECRETS: [&str; 30] = [
    "password",
    "Password",
    "PWD",
    "pwd",
    "passwd",
    "DB_PASS",
    "dbPass",
    "keystorePass",
    "client_secret",
    "clientSecret",
    "apiKey",
    "api_key",
    "AccountKey",
    "SharedAccessKey",
    "aws_secret_access_key",
    "token",
    "access_token",
    "refreshToken",
    "OAuthPvtKey",
    "Kennwort",
    "Passwort",
    "motdepasse",
    "senha",
    "wachtwoord",
    "contraseña",
    "private_key_passphrase",
    "sig",
    "credentials",
    "X-Api-Key",
    "javax.net.ssl.trustStorePassword",
];

/// Names that redaction does not know.
const UNKNOWN: [&str; 6] = ["zugang", "foo", "DeveloperThing", "x_custom", "wpa", "Losung"];

const BEFORE: [&str; 12] = [
    "",
    "Login failed: ",
    "[Vendor][Driver](100) An error has been thrown. ",
    "java.sql.SQLException: could not connect (08001) ",
    "Caused by: ",
    "ORA-12154: TNS:could not resolve. ",
    "Error\n",
    "2026-05-21 10:15:03,123 ERROR [main] ",
    "HTTP 401 Unauthorized\n",
    "GET https://api.example/v1 failed, ",
    "it's ",
    "Umlaute äöü: ",
];

const BEHIND: [&str; 8] =
    ["", "\n", " failed", " (08001)", "\nCaused by: timeout", " ... 12 more", ".", "\n\tat a.B(C.java:1)"];

/// Choices in order, from the start again after the last.
struct Choices<'c> {
    bytes: &'c [u8],
    next: usize,
}

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        let length = self.bytes.len().max(1);
        let byte = self.bytes.get(self.next % length).copied().unwrap_or_default();
        let round = u8::try_from(self.next / length % 256).unwrap_or_default();
        self.next += 1;
        usize::from(byte.wrapping_add(round.wrapping_mul(151))) % count
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Writes a secret under a name, with the signs that the secret may have.
type Shape = (fn(&str, &str) -> String, &'static str);

/// Signs without a meaning in most shapes.
const FEW: &str = "!#$%*+-.^_~";

/// Every sign of a keyboard.
const ALL: &str = "!#$%*+-.^_~&()/:;<=>?@[]{}|,\"'`\\ ";

const SHAPES: [Shape; 40] = [
    (|name, it| format!("Server=db1;Uid=etl;{name}={it};Encrypt=yes"), "!#$%*+-.^_~/:?@|"),
    (|name, it| format!("Server=db1;{name}={};Uid=etl", braced(it)), ALL),
    (|name, it| format!("Server=db1; {name} = \"{}\"; Uid=etl", it.replace('"', "\"\"")), ALL),
    (|name, it| format!("Server=db1;{name}='{}';Database=x", it.replace('\'', "''")), ALL),
    (
        |name, it| {
            format!("host=db1 port=5432 {name}='{}' sslmode=require", it.replace('\\', "\\\\").replace('\'', "\\'"))
        },
        ALL,
    ),
    (|name, it| format!("host=db1 {name}={it} port=5432"), "!#$%*+-.^_~/:?@|"),
    (|name, it| format!("{{\"host\":\"db1\",\"{name}\":\"{}\",\"port\":5432}}", json(it)), ALL),
    (|name, it| format!("{{\"{name}\": \"{}\"}}", json(it)), ALL),
    (
        |name, it| format!("{{\"body\":\"{}\"}}", json(&format!("{{\"{name}\":\"{}\",\"host\":\"db1\"}}", json(it)))),
        ALL,
    ),
    (|name, it| format!("https://api.example/x?{name}={}&port=1", percent(it)), ALL),
    (|name, it| format!("{name}={}&host=db1", percent(it)), ALL),
    (|_, it| format!("postgresql://etl:{}@db1:5432/dwh", percent(it)), ALL),
    (|_, it| format!("mongodb://etl:{it}@m1:27017,m2:27017/?replicaSet=rs0"), "!#$*+-._~@/:"),
    (|_, it| format!("https://etl:x{it}@api.example/v1"), "!#$*+-._~@/:"),
    (|name, it| format!("{{'host': 'db1', '{name}': {}, 'port': 5432}}", python(it)), ALL),
    (|name, it| format!("connect(host='db1', {name}={}, port=5432)", python(it)), ALL),
    (|name, it| format!("[('host', 'db1'), ('{name}', {})]", python(it)), ALL),
    (|name, it| format!("[['host', 'db1'], ['{name}', {}]]", python(it)), ALL),
    (|name, it| format!("{{:host=>\"db1\", :{name}=>\"{}\"}}", json(it)), ALL),
    (|name, it| format!("{{:host \"db1\" :{name} \"{}\"}}", json(it)), ALL),
    (|name, it| format!("[host: \"db1\", {name}: \"{}\", port: 1]", json(it)), ALL),
    (|name, it| format!("[{{host,\"db1\"}},{{{name},\"{}\"}}]", json(it)), ALL),
    (|name, it| format!("map[host:db1 {name}:{it} port:5432]"), "!#$%*+-.^_~/?@|"),
    (|name, it| format!("{{Host:db1 {name}:{it} Port:5432}}"), "!#$%*+-.^_~/?@|"),
    (|name, it| format!("Config{{host=db1, {name}={it}, port=1}}"), "!#$%*+-.^_~/:?@|"),
    (|name, it| format!("Config {{ host: \"db1\", {name}: Some(\"{}\") }}", json(it)), ALL),
    (|name, it| format!("<connection server='db1' {name}='{}' port='1' />", entities(it)), ALL),
    (|name, it| format!("<c><host>db1</host><{name}>{}</{name}></c>", entities(it)), ALL),
    (|name, it| format!("<property><name>{name}</name><value>{}</value></property>", entities(it)), ALL),
    (|name, it| format!("<add key=\"{name}\" value=\"{}\" />", entities(it)), ALL),
    (|name, it| format!("\nhost = db1\n{name} = {it}\nport = 1"), "!#$%*+-.^_~/:?@|"),
    (|name, it| format!("\nHost: db1\n{name}: {it}\nPort: 1"), "!#$%*+-.^_~/?@|"),
    (|name, it| format!("DB_HOST=db1 {name}={} DB_PORT=1", shell(it)), ALL),
    (|name, it| format!("load --host db1 --{name} {} --port 1", shell(it)), ALL),
    (|name, it| format!("load --host=db1 --{name}={} --port=1", shell(it)), ALL),
    (|name, it| format!("Array\n(\n    [host] => db1\n    [{name}] => {it}\n)"), "!#$%*+-.^_~/:?@|"),
    (|name, it| format!("{{\"name\":\"{name}\",\"value\":\"{}\"}}", json(it)), ALL),
    (|_, it| format!("CREATE USER etl IDENTIFIED BY \"{}\" DEFAULT TABLESPACE x", it.replace('"', "_")), ALL),
    (|_, it| format!("ALTER ROLE etl PASSWORD '{}' VALID UNTIL 'x'", it.replace('\'', "''")), ALL),
    (|_, it| format!("connect string scott/\"{}\"@ORCL", it.replace(['"', ' '], "_")), ALL),
];

/// Whether redaction hides the value of an unknown name in a shape.
fn takes_any_name(shape: usize) -> bool {
    !matches!(shape, 5 | 28 | 29 | 31 | 32 | 36)
}

/// Writes a whole text inside of another format.
const OUTER: [fn(&str) -> String; 8] = [
    str::to_owned,
    str::to_owned,
    str::to_owned,
    |text| format!("{{\"message\":\"{}\"}}", json(text)),
    |text| format!("{{\"a\":\"{}\"}}", json(&format!("{{\"message\":\"{}\"}}", json(text)))),
    |text| format!("message={}&port=1", percent(text)),
    |text| format!("<message>{}</message>", entities(text)),
    |text| {
        ["&", "=", "'", "<", ">"].iter().fold(text.to_owned(), |text, sign| {
            text.replace(sign, &format!("\\u{:04x}", u32::from(sign.chars().next().unwrap_or_default())))
        })
    },
];

impl Planted {
    /// Returns the text that choices determine.
    pub(crate) fn of(choices: &[u8]) -> Self {
        let mut choices = Choices { bytes: choices, next: 0 };
        let shape = choices.below(SHAPES.len());
        let (write, signs) = SHAPES[shape];
        let is_unknown = takes_any_name(shape) && choices.below(4) == 0;
        let name = if is_unknown { choices.of(&UNKNOWN) } else { choices.of(&SECRETS) };
        let outer = choices.of(&OUTER);
        // Redaction searches settings inside of an unknown name's value, so it may not look like settings.
        let signs = if is_unknown || choices.below(3) == 0 { FEW } else { signs };
        let (before, behind) = (choices.of(&BEFORE), choices.of(&BEHIND));
        let length = PIECE + choices.below(17);
        let signs: Vec<_> = signs.chars().collect();
        let mut secret: String = (0..length)
            .map(|_| match choices.below(8) {
                0 => char::from(b'0' + u8::try_from(choices.below(10)).unwrap_or_default()),
                1..=3 => char::from(b'a' + u8::try_from(choices.below(26)).unwrap_or_default()),
                4 | 5 => char::from(b'A' + u8::try_from(choices.below(26)).unwrap_or_default()),
                _ => choices.of(&signs),
            })
            .collect();
        // At its ends, a sign could belong to the shape.
        secret = format!("Fk{secret}7Z");
        let text = outer(&format!("{before}{}{behind}", write(name, &secret)));
        Self { text, secret }
    }

    /// Returns the first piece of a secret that a text shows. Pieces of signs alone do not count: any text may have them.
    pub(crate) fn piece_in(secret: &str, text: &str) -> Option<String> {
        let characters: Vec<_> = secret.chars().collect();
        let pieces =
            characters.windows(PIECE).filter(|piece| piece.iter().filter(|it| it.is_alphanumeric()).count() > 2);
        pieces.map(|piece| piece.iter().collect::<String>()).find(|piece| text.contains(piece.as_str()))
    }
}

fn json(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn entities(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn braced(text: &str) -> String {
    format!("{{{}}}", text.replace('}', "}}"))
}

fn python(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\");
    if text.contains('\'') && !text.contains('"') {
        format!("\"{escaped}\"")
    } else {
        format!("'{}'", escaped.replace('\'', "\\'"))
    }
}

fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "_"))
}
