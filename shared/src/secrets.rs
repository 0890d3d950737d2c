//! Takes the secrets out of what database drivers print: connection strings, tokens, keys. What helps a person stays: the
//! sentence, the error's code, the host.
//!
//! In doubt more is hidden than is secret. Every pattern runs in linear time over a text of bounded length.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

/// What stands where a secret was.
const HIDDEN: &str = "[redacted]";

/// The most characters that are looked at; what follows is dropped. More than is ever shown.
const CHARACTERS: usize = 8000;

/// How far ahead the end of an unquoted value with spaces is looked for.
const VALUE_WITH_SPACES_BYTES: usize = 100;

/// Names of values that are secret, and what separates name and value: `Pwd=`, `"api_key": `, `Account Key=`.
static SECRET_KEYS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?ix)
        (?: passw(?:or)?d | passwort | passphrase | passcode | pwd | secret | token | signature | assertion | cookie
          | session[_\x20-]?id | (?:api|access|account|private|shared|encryption|master|storage)[_\x20-]?key
          | sharedaccess(?:key|signature) | tableau-auth | \b(?:pass|pat|sas|sig)\b )
        [\w.\[\]-]{0,40} \\?["']?
        [\x20\t]* (?: => | := | = | : | %3D ) [\x20\t]*"#,
    )
});

/// Names of values that say who, which stay secret beside a password.
static USER_KEYS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?ix) \b (?: user (?:[_\x20-]?(?:id|name))? | uid | usr | log[io]n (?:[_\x20-]?(?:id|name))? | principal )
        (?: [\x20\t]* = | \\?["'] [\x20\t]* : ) [\x20\t]*"#,
    )
});

/// What is a secret by its form or its place, and what stands there instead.
static SECRET_FORMS: LazyLock<[(Regex, &str); 10]> = LazyLock::new(|| {
    [
        // Private keys, also with their line ends escaped, also cut off.
        (
            r"(?s)(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\z)",
            "$1[redacted]",
        ),
        // <Password>…
        (r"(?i)(<[\w:.-]{0,60}(?:passw(?:or)?d|pwd|secret|token|session_?id|key)[\w:.-]{0,40}>)[^<]+", "$1[redacted]"),
        // The scheme is hidden with the token: there may be none.
        (
            r#"(?i)(\b(?:proxy-)?authorization\\?["']?[ \t]*[:=][ \t]*\\?["']?)(?:[A-Za-z][\w-]*[ \t]+(?:[\w-]+="[^"]*"|[^"'\s\\,;]+)|[^"'\s\\,;]+)"#,
            "$1[redacted]",
        ),
        // Cookies, of which there may be several.
        (r#"(?i)(\bcookie:[ \t]*)[^\n"']+"#, "$1[redacted]"),
        // Who and password before a URL's host. A password may have a slash that should have been escaped.
        (r#"(\b[A-Za-z][\w+.-]{0,30}://)(?:[^\s/:@"'<>]*:[^\s"'<>]*|[^\s/?#"'<>]*)@"#, "$1[redacted]@"),
        // Oracle's user/password@host, and the same with a colon.
        (r#"(\A|[\s"'(=,:])[\w$#.-]+/[^\s/@"']+@"#, "$1[redacted]@"),
        (r#"(\A|[\s"'(=,])[\w$#.-]+:[^\s/:;,@"'{}]+@"#, "$1[redacted]@"),
        // CREATE USER … IDENTIFIED BY …
        (r#"(?i)(\b(?:identified[ \t]+by|password)[ \t]+)(?:'[^'\n]*'|"[^"\n]*")"#, "$1[redacted]"),
        // A command's options.
        (r"(?i)(\s--?(?:password|passwd|pwd|pass|token|secret)[ \t]+)[^\s;]+", "$1[redacted]"),
        // Tokens that show by their beginning what they are: JSON Web Tokens, AWS, Google, Databricks, Snowflake,
        // Salesforce, GitHub, Slack, Microsoft Entra, Tableau.
        (
            r#"(?x) \beyJ[\w-]{5,}(?:\.[\w-]*)*
              | \b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}
              | \bya29\.[\w.-]+ | \bAIza[\w-]{20,} | \bGOCSPX-[\w-]+ | \b1//[\w-]{20,}
              | \b(?:dapi|dkea|dose|dsapi)[0-9a-f]{16,}(?:-[0-9]+)?
              | \bver:[0-9]+-hint:[^\s"';,]+
              | \b00D[A-Za-z0-9]{9,15}![\w.]+
              | \bgh[a-z]_[A-Za-z0-9]{20,} | \bxox[a-z]-[\w-]{10,}
              | [\w.~-]{3}[0-9]Q~[\w.~-]{20,}
              | \b[A-Za-z0-9+/]{16,}==:[A-Za-z0-9]{16,}"#,
            "[redacted]",
        ),
    ]
    .map(|(text, hidden)| (pattern(text), hidden))
});

/// A scheme of HTTP authentication and what may be its token.
static SCHEMES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)(\b(?:bearer|basic|negotiate|ntlm)[ \t]+)([A-Za-z0-9+/=._~-]{8,})"));

#[expect(clippy::expect_used, reason = "constants, and every test uses all of them")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// The text with [`HIDDEN`] where secrets were.
pub(crate) fn redacted(text: &str) -> String {
    let text: String = text.chars().take(CHARACTERS).collect();
    let text = SECRET_FORMS.iter().fold(text, |text, (form, hidden)| form.replace_all(&text, *hidden).into_owned());
    let text = SCHEMES.replace_all(&text, |found: &Captures<'_>| {
        let (scheme, token) = (&found[1], &found[2]);
        // "Basic authentication is not allowed" is no secret.
        let is_word = token.len() < 20 && token.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.');
        format!("{scheme}{}", if is_word { token } else { HIDDEN })
    });
    let (text, has_secrets) = without_values(&text, &SECRET_KEYS, &[';']);
    if has_secrets { without_values(&text, &USER_KEYS, &[';', '&', ',', ')']).0 } else { text }
}

/// Hides the value behind each of the keys, and says whether there was any. `ends` end a value that has no quotes.
fn without_values(text: &str, keys: &Regex, ends: &[char]) -> (String, bool) {
    let (mut written, mut position, mut has_any) = (String::with_capacity(text.len()), 0, false);
    while let Some(key) = keys.find_at(text, position) {
        let Value { open, end, close } = Value::at_start_of(&text[key.end()..], ends);
        written.push_str(&text[position..key.end()]);
        position = key.end();
        // MySQL says whether there was a password: the one value that helps and harms nobody.
        let tells_whether = key.as_str().ends_with(": ")
            && ["YES", "NO"].contains(&text[position..position + end].trim_end_matches(')'));
        if end > 0 && !tells_whether {
            has_any = true;
            written.push_str(open);
            written.push_str(HIDDEN);
            written.push_str(close);
            position += end;
        }
    }
    written.push_str(&text[position..]);
    (written, has_any)
}

/// A value at the start of a text.
struct Value {
    /// What it is opened with.
    open: &'static str,
    /// Where it ends, its closing sign included; 0 if there is none.
    end: usize,
    /// What it is closed with.
    close: &'static str,
}

impl Value {
    fn at_start_of(text: &str, ends: &[char]) -> Self {
        for (open, close) in [("\\\"", "\\\""), ("\"", "\""), ("'", "'"), ("{", "}")] {
            let Some(inside) = text.strip_prefix(open) else { continue };
            if let Some(behind) = inside.strip_prefix(close).filter(|behind| !behind.starts_with(close)) {
                if behind.is_empty() || behind.starts_with(is_separator) {
                    return Self { open, end: 0, close };
                }
                break;
            }
            let Some(length) = length_before(inside, close) else { return Self { open, end: text.len(), close: "" } };
            let closed = open.len() + length + close.len();
            // A value that only happened to begin with such a sign goes on.
            let rest = &text[closed..];
            let is_behind =
                |character| is_separator(character) || ")]<>".contains(character) || (character == '}' && close != "}");
            return Self { open, end: closed + rest.find(is_behind).unwrap_or(rest.len()), close };
        }
        let is_end = |character: char| character.is_whitespace() || ends.contains(&character);
        let end = text.find(is_end).unwrap_or(text.len());
        Self { open: "", end: if end == 0 { 0 } else { with_spaces(text, end) }, close: "" }
    }
}

/// What stands between a value and the next key.
fn is_separator(character: char) -> bool {
    character.is_whitespace() || ";,&".contains(character)
}

/// How many bytes stand before a closing sign that is neither doubled nor escaped.
fn length_before(text: &str, close: &str) -> Option<usize> {
    // A quote within JSON within JSON is escaped twice; elsewhere it is escaped or doubled, a brace only doubled.
    let passed = match close {
        "\\\"" => ["\\\\\\\"", "\\\\"],
        "\"" => ["\"\"", "\\"],
        "'" => ["''", "\\"],
        _ => ["}}", "}}"],
    };
    let mut position = 0;
    loop {
        let rest = &text[position..];
        if let Some(passed) = passed.iter().find(|passed| rest.starts_with(**passed)) {
            position += passed.len();
            if *passed == "\\" {
                position += text[position..].chars().next()?.len_utf8();
            }
        } else if rest.starts_with(close) {
            return Some(position);
        } else {
            position += rest.chars().next()?.len_utf8();
        }
    }
}

/// The end of an unquoted value that seems to end at `end`: in a connection string it has spaces and ends where a
/// semicolon comes before another key.
fn with_spaces(text: &str, end: usize) -> usize {
    let line = text[end..].split('\n').next().unwrap_or_default();
    let Some(semicolon) = line.find(';').filter(|semicolon| *semicolon <= VALUE_WITH_SPACES_BYTES) else { return end };
    let next = &line[semicolon + 1..];
    let key = next.split('=').next().unwrap_or_default();
    let is_key = key.len() < next.len()
        && key.len() <= VALUE_WITH_SPACES_BYTES
        && !line[..semicolon].contains('=')
        && key.chars().all(|character| character.is_alphanumeric() || " _.-".contains(character));
    if is_key { end + semicolon } else { end }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What drivers print, each with the secrets that must go and the words that must stay. Every secret is made up.
    const MESSAGES: [(&str, &[&str], &[&str]); 35] = [
        (
            "java.lang.RuntimeException: [Microsoft][ODBC Driver 17 for SQL Server][SQL Server]Login failed for user 'svc_tableau'. \
             (Driver={ODBC Driver 17 for SQL Server};Server=tcp:sql1.corp.example,1433;Database=Sales;Uid=svc_tableau2;Pwd=Fake!Pa55,word;Encrypt=yes)",
            &["Fake!Pa55", ",word", "svc_tableau2"],
            &["Login failed for user 'svc_tableau'", "sql1.corp.example", "Database=Sales", "Encrypt=yes"],
        ),
        (
            "[Microsoft][ODBC SQL Server Driver]Invalid connection string attribute: DRIVER={SQL Server};SERVER=db7;UID={do;main\\etl};PWD={fa;ke}}pw=1};APP=Tableau (HY000)",
            &["fa;ke", "pw=1", "do;main", "etl"],
            &["Invalid connection string attribute", "SERVER=db7", "APP=Tableau", "HY000"],
        ),
        (
            "System.Data.SqlClient.SqlException: Cannot open database \"Sales\" requested by the login. Data Source=db7.example;User ID=etl user;Password=\"fake \"\"quoted\"\" pw\";Pooling=False",
            &["fake \"\"", "quoted", "etl user"],
            &["Cannot open database \"Sales\" requested by the login", "Data Source=db7.example", "Pooling=False"],
        ),
        (
            "Provider=SQLOLEDB;Data Source=db8;Password=fake pass phrase;User ID=sa;Initial Catalog=Sales: timeout expired (0x80131904)",
            &["fake pass", "phrase", "ID=sa"],
            &["Data Source=db8", "Initial Catalog=Sales", "timeout expired (0x80131904)"],
        ),
        (
            "com.microsoft.sqlserver.jdbc.SQLServerException: The TCP/IP connection to the host db9 has failed. jdbc:sqlserver://db9:1433;databaseName=x;user=etl;password=F4ke-jdbc;encrypt=true",
            &["F4ke-jdbc", "user=etl"],
            &["The TCP/IP connection to the host db9 has failed", "jdbc:sqlserver://db9:1433", "encrypt=true"],
        ),
        (
            "[Snowflake][Snowflake] (4) REST request for URL https://acme.snowflakecomputing.com/session/v1/login-request failed: CURLerror. authenticator=oauth;token=ver:1-hint:123456-ETMsDgAAAFakeSnow==;role=ANALYST",
            &["ver:1-hint", "ETMsDgAAAFakeSnow"],
            &[
                "REST request for URL https://acme.snowflakecomputing.com/session/v1/login-request failed",
                "role=ANALYST",
            ],
        ),
        (
            "net.snowflake.client.jdbc.SnowflakeSQLException: JWT token is invalid. [0ce9eb56-821d-4ca9-a774-04ae89a0cf5a] Authorization: Snowflake Token=\"FakeSnowflakeSession+/==\", warehouse WH1",
            &["FakeSnowflakeSession"],
            &["JWT token is invalid", "0ce9eb56-821d-4ca9-a774-04ae89a0cf5a", "warehouse WH1"],
        ),
        (
            "ORA-01017: invalid username/password; logon denied [jdbc:oracle:thin:scott/f4ketiger@//ora1.example:1521/ORCLPDB]",
            &["scott", "f4ketiger"],
            &["ORA-01017: invalid username/password; logon denied", "ora1.example:1521/ORCLPDB"],
        ),
        (
            "ORA-12154: TNS:could not resolve the connect identifier; connect string was scott/fake#T1ger@ORCL",
            &["fake#T1ger"],
            &["ORA-12154: TNS:could not resolve the connect identifier", "@ORCL"],
        ),
        (
            "FATAL: password authentication failed for user \"tableau\" (host=pg1.example port=5432 dbname=dwh user=tableau password='fa ke\\'pg' sslmode=require)",
            &["fa ke", "'pg"],
            &["FATAL: password authentication failed for user \"tableau\"", "host=pg1.example", "sslmode=require"],
        ),
        (
            "org.postgresql.util.PSQLException: The connection attempt failed: postgresql://etl:fake/p@ss@pg2.example:5432/dwh?sslmode=require",
            &["etl", "fake/p", "ss@"],
            &["The connection attempt failed", "@pg2.example:5432/dwh?sslmode=require"],
        ),
        (
            "[MySQL][ODBC 8.0(w) Driver]Access denied for user 'etl'@'10.0.0.7' (using password: YES) [1045] jdbc:mysql://my1/db?user=etl9&password=FakeMy%20SQL&useSSL=true",
            &["FakeMy", "etl9"],
            &["Access denied for user 'etl'@'10.0.0.7' (using password: YES) [1045]", "jdbc:mysql://my1/db"],
        ),
        (
            "400 Bad Request POST https://oauth2.googleapis.com/token {\"error\":\"invalid_grant\",\"error_description\":\"Token has been expired or revoked.\",\"refresh_token\":\"1//0gFakeRefreshTokenFakeRefresh\", \"client_secret\": \"GOCSPX-FakeClientSecret\"}",
            &["FakeRefresh", "FakeClientSecret", "1//0g"],
            &["invalid_grant", "Token has been expired or revoked."],
        ),
        (
            "com.google.cloud.bigquery.BigQueryException: Access Denied: Table proj:ds.t. Request had access ya29.a0FakeGoogleAccess_Token-1 and key AIzaSyFakeFakeFakeFakeFakeFakeFakeFake1",
            &["ya29", "FakeGoogle", "AIza"],
            &["Access Denied: Table proj:ds.t"],
        ),
        (
            "[Simba][BigQuery] (100) Invalid key file: {\"type\": \"service_account\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMIIFakeFakeKey+/\\nabc=\\n-----END PRIVATE KEY-----\\n\", \"client_email\": \"x@proj.iam.gserviceaccount.com\"}",
            &["MIIFakeFakeKey", "abc="],
            &["[Simba][BigQuery] (100) Invalid key file", "service_account"],
        ),
        (
            "[Amazon][Amazon Redshift] (10) IAM error retrieving credentials: UID=admin;AccessKeyID=AKIAFAKEFAKEFAKEFAKE;SecretAccessKey=fake/Secret+Key/0123456789;SessionToken=FwoFakeSession//////;Host=rs1.example",
            &["AKIA", "fake/Secret", "FwoFake", "UID=admin"],
            &["IAM error retrieving credentials", "Host=rs1.example"],
        ),
        (
            "COPY sales FROM 's3://bucket/x' CREDENTIALS 'aws_access_key_id=ASIAFAKEFAKEFAKE1234;aws_secret_access_key=fakeCopySecret' ERROR: S3ServiceException:Access Denied,Status 403",
            &["ASIA", "fakeCopySecret"],
            &["COPY sales FROM 's3://bucket/x'", "S3ServiceException:Access Denied,Status 403"],
        ),
        (
            "[Simba][ThriftExtension] (14) Unexpected response from server. Host=adb-1.azuredatabricks.net;HTTPPath=/sql/1.0;AuthMech=3;UID=token;PWD=dapi0123456789abcdef0123456789abcdef-2;",
            &["dapi0123", "UID=token"],
            &["Unexpected response from server", "Host=adb-1.azuredatabricks.net", "AuthMech=3"],
        ),
        (
            "[Databricks] 403: Invalid access token dapifeedfacefeedfacefeedfacefeedface for workspace 42",
            &["dapifeed"],
            &["403: Invalid access token", "workspace 42"],
        ),
        (
            "[SAP AG][LIBODBCHDB DLL][HDBODBC] Connection failed;-10709 SERVERNODE=hana1:30015;UID=SYSTEM;PWD=Fake$Hana#1;ENCRYPT=TRUE",
            &["Fake$Hana#1", "SYSTEM"],
            &["Connection failed;-10709", "SERVERNODE=hana1:30015", "ENCRYPT=TRUE"],
        ),
        (
            "Salesforce: INVALID_LOGIN: Invalid username, password, security token; or user locked out. <sf:sessionId>00D500000000Fak!AQkAQFakeSession.x_y</sf:sessionId> <password>fakeSoapPw</password>",
            &["AQkAQ", "fakeSoapPw", "00D5"],
            &["INVALID_LOGIN: Invalid username, password, security token; or user locked out."],
        ),
        (
            "GET https://acme.my.salesforce.com/services/data/v58.0/query failed (401), Authorization: Bearer 00D500000000Fak!AQ0AQFakeBearer",
            &["AQ0AQ", "00D5"],
            &["https://acme.my.salesforce.com/services/data/v58.0/query failed (401)"],
        ),
        (
            "HTTP 403 AuthorizationFailure https://lake.blob.core.windows.net/x/y.parquet?sv=2022-11-02&sr=b&se=2026-05-22T00%3A00%3A00Z&sp=r&sig=fakeSasSignature%2Fabc%3D was refused",
            &["fakeSas", "abc%3D"],
            &["HTTP 403 AuthorizationFailure https://lake.blob.core.windows.net/x/y.parquet", "was refused"],
        ),
        (
            "DefaultEndpointsProtocol=https;AccountName=lake;AccountKey=RmFrZUFjY291bnRLZXk9PQ==;EndpointSuffix=core.windows.net: the specified account is disabled",
            &["RmFrZUFj"],
            &["AccountName=lake", "the specified account is disabled"],
        ),
        (
            "Endpoint=sb://bus.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=RmFrZVNoYXJlZEtleQ=;EntityPath=q: 40103 Invalid authorization token signature",
            &["RmFrZVNo"],
            &["Endpoint=sb://bus.servicebus.windows.net/", "40103 Invalid authorization"],
        ),
        (
            "AADSTS7000215: Invalid client secret provided. client_id=7b&client_secret=Fak8Q~FakeEntraSecretFakeEntraSecret1 Trace ID: 11ff7a7e-4ac9-4d99-84df-73a4138ab502",
            &["Fak8Q", "FakeEntra"],
            &["AADSTS7000215: Invalid client secret provided.", "Trace ID: 11ff7a7e-4ac9-4d99-84df-73a4138ab502"],
        ),
        (
            "Hyper: unable to connect to the server \"tab.tcp://localhost:1234,user=tableau_internal,password=fakeHyperPw\": the database is locked (55006)",
            &["fakeHyperPw"],
            &["Hyper: unable to connect to the server", "the database is locked (55006)"],
        ),
        (
            "Bridge agent BRIDGE-01 could not refresh: PAT 'bridge' qlE1g9MMh9vbrjjg==:rZTHhPpP2tUW1kfn4tjg8 was refused (16) [jobId 5998aaaf]",
            &["qlE1g9", "rZTHh"],
            &["Bridge agent BRIDGE-01 could not refresh", "was refused (16)"],
        ),
        (
            "Bridge agent: sign-in failed, token_name=bridge token_secret=qlE1g9MMh9vbrjjgFake==:rZTHhPpP2tUW1kfn4tjgFake, retrying in 30 s",
            &["qlE1g9", "rZTHh", "=bridge"],
            &["Bridge agent: sign-in failed", "retrying in 30 s"],
        ),
        (
            "java.sql.SQLException: Could not create connection\n\tat com.tableau.Connect.open(Connect.java:7)\nCaused by: java.lang.IllegalArgumentException: \
             url=jdbc:redshift:iam://rs2.example:5439/dev, properties={user=etl5, password=fakeProps, ssl=true}\n\t... 9 more",
            &["fakeProps"],
            &["Could not create connection", "Connect.java:7", "rs2.example:5439/dev"],
        ),
        (
            "Request body was {\\\"username\\\":\\\"etl6\\\",\\\"password\\\":\\\"fake\\\\\\\"esc\\\",\\\"database\\\":\\\"dwh\\\"} HTTP 500",
            &["etl6", "esc"],
            &["Request body was", "database\\\":\\\"dwh", "HTTP 500"],
        ),
        (
            "401 for https://dwh.example/odata, X-Tableau-Auth: fakeAuth|Token Cookie: sid=fakeSid; x=fakeCookie\nredirect_uri=a&code=1&password%3DfakeEncoded was refused",
            &["fakeAuth", "fakeSid", "fakeCookie", "fakeEncoded"],
            &["401 for https://dwh.example/odata", "was refused"],
        ),
        (
            "Error parsing <connection class='sqlserver' username='etl7' password='fake &quot;xml&quot; pw' server='db11' />: unexpected element",
            &["etl7", "fake &quot;", "xml&quot; pw"],
            &["<connection class='sqlserver'", "server='db11'", "unexpected element"],
        ),
        (
            "redis://:fa/ke@cache1:6379/0 timed out; curl -u etl:fakeCurl@dwh.example and mongodb+srv://u:fakeMongo%40@c0.example/db did too",
            &["fa/ke", "fakeCurl", "fakeMongo"],
            &["@cache1:6379/0 timed out", "@dwh.example", "@c0.example/db did too"],
        ),
        (
            "[Teradata][ODBC] (8017) The UserId, Password or Account is invalid. eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJmYWtlIn0.RmFrZVNpZ25hdHVyZQ and Basic ZXRsOmZha2VCYXNpYw==; Basic authentication is not allowed",
            &["eyJ", "RmFrZ", "ZXRsOm"],
            &["(8017) The UserId, Password or Account is invalid.", "Basic authentication is not allowed"],
        ),
    ];

    #[test]
    fn no_secret_of_a_driver_s_message_survives_and_what_helps_does() {
        for (message, secrets, words) in MESSAGES {
            let shown = redacted(message);
            for secret in secrets {
                assert!(message.contains(secret) && !shown.contains(secret), "{secret}\n{message}\n{shown}");
            }
            for word in words {
                assert!(shown.contains(word), "{word}\n{message}\n{shown}");
            }
            assert_eq!(redacted(&shown), shown);
        }
        insta::assert_snapshot!(MESSAGES.map(|(message, ..)| redacted(message)).join("\n\n"));
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        for message in [
            "Login failed for user 'sa'. (18456)",
            "password authentication failed for user \"etl\"",
            "ORA-28001: the password has expired",
            "Cannot find table \"tokens\"; 3 of 4 rows were read at 2026-05-21T08:00:00Z",
            "The security token included in the request is invalid.",
            "https://receiver.example:443/path?q=1 answered 500",
            "Bearer authentication is not supported, user=etl",
            "Access denied for user 'etl'@'10.0.0.7' (using password: NO)",
            "Password=;Server=x",
            "at 12:30 https://h.example:443/a failed for bob@example.com",
            "ORA-06512: at \"SYS.DBMS/X\", line 1",
            "{\"password\":\"\",\"error\":\"none\"}",
        ] {
            assert_eq!(redacted(message), message);
        }
    }

    #[test]
    fn the_longest_text_of_the_worst_kind_becomes_short() {
        for worst in [
            "password=",
            "password='",
            "user=a;pwd={",
            "a://",
            "a/",
            "-----BEGIN PRIVATE KEY-----",
            "eyJ",
            "Pwd=a b ",
            "<key>",
        ] {
            let text = worst.repeat(1_000_000 / worst.len());
            assert!(redacted(&text).chars().count() < 4 * CHARACTERS, "{worst}");
        }
    }

    /// Texts of what drivers' messages are made of, in any order.
    fn pieces() -> impl Strategy<Value = String> {
        let pieces = [
            "Pwd",
            "password",
            "Token",
            "user",
            "UID",
            "=",
            ":",
            " ",
            ";",
            ",",
            "&",
            "{",
            "}",
            "\"",
            "'",
            "\\\"",
            "\\",
            "@",
            "/",
            "://",
            "abc",
            "Basic ",
            "Bearer ",
            "YES",
            "eyJhbGciOi",
            ".",
            "\n",
            "<password>",
            "</",
            "http",
            "[redacted]",
            "Authorization",
            "é",
        ];
        vec(prop::sample::select(pieces.to_vec()), 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_text_can_be_redacted(text: String, pieces in pieces()) {
            for text in [text, pieces] {
                let shown = redacted(&text);
                // A secret of one character is replaced by more.
                prop_assert!(shown.chars().count() <= 4 * text.chars().count() + HIDDEN.len());
            }
        }

        #[test]
        fn what_was_redacted_has_nothing_more_to_redact(pieces in pieces()) {
            let shown = redacted(&pieces);
            prop_assert_eq!(redacted(&shown), shown);
        }

        #[test]
        fn a_planted_password_never_survives(
            key in "(Password|PWD|pwd|passwd|Db_Password|client_secret|ApiKey|SecretAccessKey|sig|token)",
            password in "[!-%'-+\\--:<-~]{3,40}",
            around in "[a-z .]{0,20}",
            end in prop::sample::select(&["", ";Server=x", "; Server=x", "\n", " next words"]),
        ) {
            prop_assume!(password.chars().any(|character| character.is_alphanumeric()));
            prop_assume!(!around.contains(&password) && !HIDDEN.contains(&password) && !end.contains(&password));
            // These belong to what stands between key and value.
            prop_assume!(!password.starts_with(['=', '>']));
            let shown = redacted(&format!("{around} {key}={password}{end}"));
            prop_assert!(!shown.contains(&password), "{}", shown);
        }
    }
}
