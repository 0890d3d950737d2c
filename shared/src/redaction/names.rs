//! Names of settings, and which of them have values that may be shown.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

/// The longest name that is read.
pub(super) const MAX_NAME_BYTES: usize = 60;

/// The most words of a name.
const MAX_NAME_WORDS: usize = 4;

/// Class of a value, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Never shown.
    Secret,
    /// A user. Hidden next to a secret.
    User,
    /// Shown, except for secrets inside.
    Harmless,
    /// The name of another value: `{"name":"password","value":"…"}`.
    Naming,
    /// Not shown in settings.
    Unknown,
}

/// Names that contain one of these are secret, in the languages that drivers speak.
const SECRET_PARTS: &str = "
    passw passphrase passcode passkey pwd secret token credential signature apikey accesskey privatekey accountkey
    sharedkey encryptionkey masterkey storagekey pvtkey sshkey keydata keypair assertion cookie sessionid
    authorization bearer jwt sharedaccess authkey authcode kennwort passwort geheim zugangsdaten zugangscode
    schluessel schlüssel motdepasse motpasse contrasen contraseñ clavede palabraclave senha palavrapasse chave
    wachtwoord sleutel lösenord losenord adgangskode passord heslo hasło jelszó salasana parola пароль パスワード 密码 密碼
    비밀번호
";

/// Names whose last word is one of these are secret.
const SECRET_WORDS: &str = "
    pass pw pin pat sas sig key keys auth otp totp psk salt hmac mfa mdp clave clef clé pword passwds creds cred
    sso2 sid2 mysapsso2 crumb csrf nonce 口令 暗証番号
";

/// Names of users.
const USERS: &str = "
    user username userid uid usr usrname usruid login loginname loginid logon logonid logonname principal benutzer
    benutzername benutzerkennung utilisateur nomdutilisateur identifiant usuario nombredeusuario usuário utente
    nomeutente gebruiker gebruikersnaam ユーザー名
";

/// Whole names that are harmless although a part or the last word is secret or unknown.
const HARMLESS_NAMES: &str = "
    publickeytoken tokentype tokenendpoint tokenurl tokenuri tokenexpiry sharedaccesskeyname keyvault keystore
    truststore keystoretype truststoretype sslkeystore ssltruststore sslkey keyspace primarykey foreignkey uniquekey
    duplicatekey partitionkey sortkey distkey unexpectedtoken mismatchedtoken unrecognizedtoken illegaltoken
    passwordtype authmech authtype authenticationtype authenticationmethod authentication authenticator oauthtype
    oauthmechanism credentialtype persistsecurityinfo secretname secretarn usingpassword httppath account
    accountname application applicationname app appname applicationintent bucket build catalog initialcatalog
    clientid connectionid correlationid requestid traceid activityid jobid taskid queryid statementid sessionnumber
    processid threadid thread pid tid runid projectid project tenantid tenant workspaceid clusterid warehouseid
    siteid datasourceid workbookid objectid eventid rowid itemid dataset datasetid defaultdataset datasource dsn sid
    tdpid sysnr mandant sysid servernode serviceprincipalname integratedsecurity trustedconnection
    trustservercertificate multipleactiveresultsets pooling encrypt ssl tls usessl enablessl ssloption
    s3outputlocation s3stagingdir endpointsuffix defaultendpointsprotocol entitypath replicaset retrywrites culture
    extensionattribute lang tz sortedby lc os arch pgoptions ha connecttimeoutms authsource authdb servicename
    multisubnetfailover packetsize workstation workstationid direct zk source mechanism authmechanism rc cn o ou dc
    st expires expiresin expiresat args argv arguments cmd realm invariant odbcconnect connectionstring connstr
    connectstring conninfo connectionuri logmech
    tmode workgroup encryption timezone servertimezone sslrootcert sslcert hostnameincertificate executionid
    queryexecutionid resource audience issuer alt restype
";

/// Names that end with one of these words are harmless.
const HARMLESS_WORDS: &str = "
    host hostname hosts hostaddr server servers servername port ports portnumber database databasename databases db
    dbname schema schemas catalogue driver provider region zone location cluster node instance service endpoint
    address addr ip domain url uri jdbcurl site workbook project warehouse role keyspace namespace index table
    tablename column columns field fields view queue topic machine computer path file filename directory folder
    drive library module package schemaname libname code codes state status sqlstate sqlcode message messages msg
    error errors err errno reason detail details description hint cause exception warning info result response
    output stderr stdout severity level category title subject summary note context position line row rows
    faultstring faultcode trace stack solution timeout timeoutms version protocol mode sslmode type format method
    operation action statement query sql text command language locale charset encoding compression engine plugin
    product edition kind class object function procedure event job task agent time timestamp date duration elapsed
    started ended retries attempt count size limit rate verify grant scope
";

/// The same in other languages.
const HARMLESS_FOREIGN: &str = "
    serveur servidor hôte hote anfitrión treiber pilote controlador datenbank datenbankname basededonnées
    basededonnees basededatos bancodedados banco databank données anschluss puerto porta porto poort schéma esquema
    fehler fehlercode fehlermeldung meldung erreur errore erro fout foutcode código codigo codice mensaje messaggio
    mensagem estado stato état ursache サーバー ホスト ポート データベース エラー
";

const NAMING: &str = "
    name key field property param parameter option attribute setting header variable argument label
";

/// The lists above, prepared for lookup.
struct Lists {
    exact: HashMap<&'static str, Class>,
    secret_parts: Vec<&'static str>,
    secret_words: HashSet<&'static str>,
    users: Vec<&'static str>,
    harmless_words: Vec<&'static str>,
}

static LISTS: LazyLock<Lists> = LazyLock::new(|| {
    let named = NAMING.split_whitespace().map(|name| (name, Class::Naming));
    let users = USERS.split_whitespace().map(|name| (name, Class::User));
    let foreign = HARMLESS_FOREIGN.split_whitespace().map(|name| (name, Class::Harmless));
    let harmless = HARMLESS_NAMES.split_whitespace().map(|name| (name, Class::Harmless));
    Lists {
        exact: named.chain(users).chain(foreign).chain(harmless).collect(),
        secret_parts: SECRET_PARTS.split_whitespace().collect(),
        secret_words: SECRET_WORDS.split_whitespace().collect(),
        users: USERS.split_whitespace().filter(|user| user.len() > 3).collect(),
        harmless_words: HARMLESS_WORDS.split_whitespace().chain(HARMLESS_FOREIGN.split_whitespace()).collect(),
    }
});

impl Class {
    /// Classifies a name in any style: `dbHost`, `DB_HOST`, `--db-host`, `Db Host`.
    pub(super) fn of(name: &str) -> Self {
        let (joined, last) = words(name);
        let lists = &*LISTS;
        // Whole names before parts, which may disagree.
        match lists.exact.get(&*joined) {
            Some(Self::Naming) if name == "KEY" => return Self::Secret,
            Some(class) => return *class,
            None => {}
        }
        let is_secret = lists.secret_parts.iter().any(|part| joined.contains(part))
            || lists.secret_words.contains(&*last)
            || joined.ends_with("pass") && !joined.ends_with("bypass")
            || joined.ends_with("key");
        if is_secret {
            Self::Secret
        } else if lists.users.iter().any(|user| joined.ends_with(user)) {
            Self::User
        } else if last == "name"
            || lists.harmless_words.iter().any(|word| last == *word || word.len() > 3 && joined.ends_with(word))
        {
            Self::Harmless
        } else {
            Self::Unknown
        }
    }

    /// Classifies several words, if they are known as a whole.
    pub(super) fn of_phrase(phrase: &str) -> Option<Self> {
        let (joined, last) = words(phrase);
        if is_error_word(&last) {
            return None;
        }
        match LISTS.exact.get(&*joined) {
            Some(Self::Naming) | None => {}
            Some(class) => return Some(*class),
        }
        LISTS.secret_parts.iter().any(|part| joined.starts_with(part)).then_some(Self::Secret)
    }

    /// Whether the name is a known name of a setting.
    pub(super) fn is_known(self) -> bool {
        self != Self::Unknown
    }
}

/// Whether a word reports an error, which no name of a setting does.
pub(super) fn is_error_word(word: &str) -> bool {
    const WORDS: &str = "
        or and invalid incorrect wrong bad missing expired unexpected no unknown empty illegal mismatched unrecognized null
        without failed failure denied required rejected error not mismatch revoked locked
    ";
    WORDS.split_ascii_whitespace().any(|of_list| of_list == word)
}

/// Returns the words of a name joined in lower case, and the last of them.
fn words(name: &str) -> (String, String) {
    let (mut joined, mut last, mut before) = (String::new(), String::new(), ' ');
    for character in name.chars() {
        if !character.is_alphanumeric() {
            before = ' ';
            continue;
        }
        let begins = before == ' ' || before.is_lowercase() && character.is_uppercase();
        if begins {
            last.clear();
        }
        joined.extend(character.to_lowercase());
        last.extend(character.to_lowercase());
        before = character;
    }
    (joined, last)
}

/// A name before a separator.
pub(super) struct Name<'t> {
    pub(super) start: usize,
    /// Start of the words that classify it; others may precede them.
    pub(super) words_start: usize,
    pub(super) text: &'t str,
    pub(super) class: Class,
    pub(super) is_quoted: bool,
    /// Whether no space separates the name from its separator.
    pub(super) is_tight: bool,
}

impl<'t> Name<'t> {
    /// Reads the name before a separator at `at`.
    pub(super) fn before(text: &'t str, at: usize) -> Option<Self> {
        let near_start = text.ceil_char_boundary(at.saturating_sub(MAX_NAME_BYTES));
        let near = &text[near_start..at];
        let trimmed = near.trim_end_matches([' ', '\t']);
        let is_tight = trimmed.len() == near.len();
        let unbracketed = trimmed.trim_end_matches([']', '>']);
        if unbracketed.ends_with(['"', '\'', '`', '”', '»']) {
            return Self::quoted(unbracketed, near_start, is_tight);
        }
        if unbracketed.len() < trimmed.len() && !unbracketed.contains('[') {
            return None;
        }
        let begin = word_start(unbracketed);
        let word = unbracketed[begin..].trim_start_matches(['-', '.', '$', '#']);
        if word.is_empty() || word.chars().all(|character| character.is_ascii_digit()) {
            return None;
        }
        let words_start = near_start + begin;
        let class = Class::of(word);
        let mut name = Name { start: words_start, words_start, text: word, class, is_quoted: false, is_tight };
        // A name may have several words, and a sentence may precede it.
        let mut start = begin;
        for _ in 1..MAX_NAME_WORDS {
            let before =
                unbracketed[..start].strip_suffix(' ').filter(|before| before.ends_with(char::is_alphanumeric));
            let Some(before) = before else { break };
            start = word_start(before);
            let phrase = &unbracketed[start..];
            if phrase.contains(|character: char| character.is_ascii_digit()) {
                break;
            }
            if let Some(class) = Class::of_phrase(phrase) {
                name = Name { start: near_start + start, words_start: near_start + start, text: phrase, class, ..name };
            } else if start == 0 || unbracketed[..start].trim_end_matches([' ', '\t', '-', '*']).ends_with('\n') {
                // The whole line is the name.
                name.start = near_start + start;
            }
        }
        Some(name)
    }

    /// Reads a name in quotes at the end of `near`, which begins at `near_start`.
    fn quoted(near: &'t str, near_start: usize, is_tight: bool) -> Option<Self> {
        let unquoted = near.trim_end_matches(['"', '\'', '`', '”', '»']);
        let quote = near[unquoted.len()..].chars().next()?;
        let content = unquoted.trim_end_matches('\\');
        let open = content.rfind(|character| character == quote || "„“«".contains(character))?;
        let text = content[open..].trim_start_matches(['"', '\'', '`', '„', '“', '«']);
        let start = near_start + content[..open].trim_end_matches(['\\', '<', '[']).len();
        let is_of_name = |character: char| character.is_alphanumeric() || " _.-$#@:".contains(character);
        let class = Class::of_phrase(text).unwrap_or_else(|| Class::of(text));
        let name = Name { start, words_start: start, text, class, is_quoted: true, is_tight };
        (!text.is_empty() && text.chars().all(is_of_name)).then_some(name)
    }
}

/// Returns the start of the last word of a text.
fn word_start(text: &str) -> usize {
    let is_of_word = |character: char| character.is_alphanumeric() || "_-.$#".contains(character);
    text.trim_end_matches(is_of_word).len()
}
