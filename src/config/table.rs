//! Every setting, once: names, type, parser, default and help. The command line, the variables, the
//! keys of the file, `wal-archive config` and the tables of `docs/configuration.md` follow from here.

use super::setting::Preset::{Nothing, Value, Words};
use super::setting::Program::{Archive, Fetch, Push};
use super::setting::Takes::{Boolean, List, Number, Switch, Text};
use super::setting::{Program, Row, Scope, Setting, all, one, optional};
use super::values::{self, LogFormat, OnError, Sse};
use crate::storage::s3::{ConditionalWrites, RequestChecksums, Secret};
use crate::wal::WalName;
use std::path::PathBuf;
use std::time::Duration;

const ALL: &[Program] = &[Push, Fetch, Archive];

/// What most settings have.
const PLAIN: Row = Row {
    name: "",
    programs: &[],
    takes: Switch,
    scope: Scope::Program,
    default: Nothing,
    theirs: &[],
    secret: false,
    help: "",
};

/// What every setting of `[s3]` has.
const S3: Row = Row { programs: ALL, takes: Text("VALUE"), scope: Scope::Destination, ..PLAIN };

/// What every setting of `[encryption]` has.
const AGE: Row = Row { programs: ALL, scope: Scope::Encryption, ..PLAIN };

macro_rules! settings {
    ($($name:ident: $type:ty = $read:expr, $row:expr;)*) => {
        $(pub(crate) static $name: Setting<$type> = Setting { row: $row, read: $read };)*

        /// All of them, in the order of the help.
        pub static SETTINGS: &[&Row] = &[$(&$name.row),*];
    };
}

settings! {
    ARCHIVE: Vec<String> = |v| all(v, values::text), Row {
        name: "archive",
        programs: ALL,
        takes: List("URL"),
        theirs: &["WALG_FILE_PREFIX", "WALG_S3_PREFIX"],
        help: "A destination: /directory, file:///directory or s3://bucket/prefix; repeat it for several copies",
        ..PLAIN
    };
    CONFIG: Option<PathBuf> = |v| optional(v, values::path), Row {
        name: "config",
        programs: ALL,
        takes: Text("FILE"),
        scope: Scope::Call,
        default: Words("/etc/wal-archive/config.toml where it exists"),
        help: "The configuration file",
        ..PLAIN
    };
    CLUSTER: Option<String> = |v| optional(v, values::text), Row {
        name: "cluster",
        programs: ALL,
        takes: Text("NAME"),
        scope: Scope::Call,
        default: Words("the one whose pgdata the call runs in; the only one, if it names none"),
        help: "The cluster whose settings hold, where the configuration file has [cluster.NAME]",
        ..PLAIN
    };
    PGDATA: Option<PathBuf> = |v| optional(v, values::absolute_path), Row {
        name: "pgdata",
        programs: ALL,
        takes: Text("DIRECTORY"),
        scope: Scope::File,
        help: "The data directory that the cluster is for, or the whole file where it has no clusters",
        ..PLAIN
    };
    LOG_FORMAT: LogFormat = |v| one(v, values::log_format), Row {
        name: "log-format",
        programs: ALL,
        takes: Text("FORMAT"),
        default: Value("text"),
        help: "How messages on stderr look: text or json",
        ..PLAIN
    };
    TIMEOUT: Option<Duration> = |v| optional(v, values::duration), Row {
        name: "timeout",
        programs: &[Push, Fetch],
        takes: Text("DURATION"),
        default: Words("of wal-push 2min and 1s per MiB; of wal-fetch 5min in the abort form, 20s in the retry form"),
        help: "The longest the whole call may take, such as 30s or 2min",
        ..PLAIN
    };
    SPOOL_DIR: Option<PathBuf> = |v| optional(v, values::absolute_path), Row {
        name: "spool-dir",
        programs: &[Push, Fetch],
        takes: Text("DIRECTORY"),
        default: Words("the data directory's path with .wal-spool"),
        help: "The private cache directory; in it each PostgreSQL cluster has a folder of its own",
        ..PLAIN
    };
    NO_HEADER_CHECK: bool = |v| one(v, values::boolean), Row {
        name: "no-header-check",
        programs: &[Push, Fetch],
        default: Value("false"),
        help: "Do not look at WAL pages: only for forks of PostgreSQL that encrypt them",
        ..PLAIN
    };
    LEVEL: i32 = |v| one(v, values::level), Row {
        name: "level",
        programs: &[Push],
        takes: Number("N"),
        default: Value("1"),
        help: "zstd compression level, -5 to 19",
        ..PLAIN
    };
    LOOK_AHEAD: usize = |v| one(v, values::window), Row {
        name: "look-ahead",
        programs: &[Push],
        takes: Number("N"),
        default: Value("32"),
        help: "How many more files may be archived in one call, so that their own calls are short; 0: none",
        ..PLAIN
    };
    JOBS: usize = |v| one(v, values::jobs), Row {
        name: "jobs",
        programs: &[Push],
        takes: Number("N"),
        default: Value("4"),
        help: "How many files are compressed at once when looking ahead, 1 to 64",
        ..PLAIN
    };
    DROP_CACHE: bool = |v| one(v, values::boolean), Row {
        name: "drop-cache",
        programs: &[Push],
        default: Value("false"),
        help: "Let the system forget the pages of archived files: for machines where nobody reads them again",
        ..PLAIN
    };
    CLIENT_ENCRYPTION: Option<()> = |v| optional(v, values::client_encryption), Row {
        name: "client-encryption",
        programs: &[Push],
        takes: Text("none"),
        help: "Say \"none\" to archive without client-side encryption although WAL-G's encryption variables are set",
        ..PLAIN
    };
    ON_ERROR: OnError = |v| one(v, values::on_error), Row {
        name: "on-error",
        programs: &[Fetch],
        takes: Text("FORM"),
        default: Value("auto"),
        help: "The form of error codes: auto, retry (2 and 20 to 24) or abort (202 and 220 to 224)",
        ..PLAIN
    };
    ALLOW_EMPTY: bool = |v| one(v, values::boolean), Row {
        name: "allow-empty",
        programs: &[Fetch],
        default: Value("false"),
        help: "Believe that a file is missing even where the destination shows no sign of being an archive",
        ..PLAIN
    };
    ACCEPT_GAP: Vec<WalName> = |v| all(v, values::segment_or_history), Row {
        name: "accept-gap",
        programs: &[Fetch],
        takes: List("NAME"),
        help: "A segment or timeline history that is lost for good: answer that it is missing although what follows it is there",
        ..PLAIN
    };
    PREFETCH: usize = |v| one(v, values::window), Row {
        name: "prefetch",
        programs: &[Fetch],
        takes: Number("N"),
        default: Value("8"),
        help: "How many segments to bring ahead in the background, at most 1 GiB; 0: none",
        ..PLAIN
    };
    PARTIAL: bool = |v| one(v, values::boolean), Row {
        name: "partial",
        programs: &[Fetch],
        default: Value("false"),
        help: "Give SEGMENT.partial for a segment that is not there: to recover what \"wal-archive drain\" stored last",
        ..PLAIN
    };
    ENDPOINT: Option<String> = |v| optional(v, values::http_url), Row {
        name: "endpoint",
        takes: Text("URL"),
        theirs: &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
        default: Words("the profile's endpoint_url, else AWS itself"),
        help: "The URL of a store other than AWS: https://host:port",
        ..S3
    };
    REGION: Option<String> = |v| optional(v, values::text), Row {
        name: "region",
        takes: Text("NAME"),
        default: Words("AWS_REGION or the profile's, else us-east-1 with an endpoint"),
        help: "The bucket's region",
        ..S3
    };
    PATH_STYLE: Option<bool> = |v| optional(v, values::boolean), Row {
        name: "path-style",
        takes: Boolean,
        theirs: &["AWS_S3_FORCE_PATH_STYLE"],
        default: Words("true with an endpoint, else false"),
        help: "Whether the bucket is named in the path of a URL and not in its host",
        ..S3
    };
    PROFILE: Option<String> = |v| optional(v, values::text), Row {
        name: "profile",
        takes: Text("NAME"),
        default: Words("AWS_PROFILE"),
        help: "A profile of ~/.aws/config and ~/.aws/credentials",
        ..S3
    };
    ACCESS_KEY_ID: Option<Secret> = |v| optional(v, values::secret), Row {
        name: "access-key-id",
        secret: true,
        default: Words("the AWS credentials chain"),
        help: "With secret_access_key, used instead of the AWS credentials chain",
        ..S3
    };
    SECRET_ACCESS_KEY: Option<Secret> = |v| optional(v, values::secret), Row {
        name: "secret-access-key",
        secret: true,
        default: Words("the AWS credentials chain"),
        help: "The other half of access_key_id",
        ..S3
    };
    SESSION_TOKEN: Option<Secret> = |v| optional(v, values::secret), Row {
        name: "session-token",
        secret: true,
        default: Words("the AWS credentials chain"),
        help: "The third part of temporary credentials",
        ..S3
    };
    CA_BUNDLE: Option<PathBuf> = |v| optional(v, values::absolute_path), Row {
        name: "ca-bundle",
        takes: Text("FILE"),
        theirs: &["WALG_S3_CA_CERT_FILE", "AWS_CA_BUNDLE"],
        help: "PEM certificates to trust beside the system's",
        ..S3
    };
    PROXY: Option<String> = |v| optional(v, values::http_url), Row {
        name: "proxy",
        takes: Text("URL"),
        default: Words("HTTPS_PROXY or HTTP_PROXY by the endpoint, else ALL_PROXY"),
        help: "A proxy: http://host:port",
        ..S3
    };
    NO_PROXY: Option<String> = |v| optional(v, values::text), Row {
        name: "no-proxy",
        takes: Text("HOSTS"),
        default: Words("NO_PROXY"),
        help: "Hosts, domains and networks that are reached without the proxy, with commas between",
        ..S3
    };
    STORAGE_CLASS: Option<String> = |v| optional(v, values::text), Row {
        name: "storage-class",
        takes: Text("CLASS"),
        theirs: &["WALG_S3_STORAGE_CLASS"],
        default: Words("the bucket's"),
        help: "The storage class of new objects, such as STANDARD_IA",
        ..S3
    };
    SSE: Option<Sse> = |v| optional(v, values::sse), Row {
        name: "sse",
        takes: Text("MODE"),
        theirs: &["WALG_S3_SSE"],
        default: Words("the bucket's"),
        help: "Encryption by the store: AES256 or aws:kms",
        ..S3
    };
    SSE_KMS_KEY_ID: Option<String> = |v| optional(v, values::text), Row {
        name: "sse-kms-key-id",
        takes: Text("ID"),
        theirs: &["WALG_S3_SSE_KMS_ID"],
        default: Words("the account's"),
        help: "The id of the key of aws:kms",
        ..S3
    };
    TAGS: Option<String> = |v| optional(v, values::text), Row {
        name: "tags",
        takes: Text("TAGS"),
        help: "Tags of each object: key=value&key=value",
        ..S3
    };
    REQUEST_CHECKSUMS: RequestChecksums = |v| one(v, values::request_checksums), Row {
        name: "request-checksums",
        takes: Text("WHEN"),
        default: Value("when-supported"),
        help: "Checksums of uploads: when-supported or when-required",
        ..S3
    };
    CONDITIONAL_WRITES: ConditionalWrites = |v| one(v, values::conditional_writes), Row {
        name: "conditional-writes",
        takes: Text("MODE"),
        default: Value("required"),
        help: "required, or unsupported to accept silent overwrites by a racing server",
        ..S3
    };
    RECIPIENTS: Vec<String> = |v| all(v, values::text), Row {
        name: "recipients",
        takes: List("RECIPIENT"),
        help: "The public keys (age1...) for which the archive is encrypted, 1 to 8",
        ..AGE
    };
    RECIPIENTS_FILE: Option<PathBuf> = |v| optional(v, values::absolute_path), Row {
        name: "recipients-file",
        takes: Text("FILE"),
        help: "A file with more of them, one a line",
        ..AGE
    };
    COMPARE_RECIPIENTS: Vec<String> = |v| all(v, values::text), Row {
        name: "compare-recipients",
        takes: List("RECIPIENT"),
        help: "Earlier recipients: what was written for them is recognised, and nothing is encrypted for them",
        ..AGE
    };
    IDENTITY_FILE: Option<PathBuf> = |v| optional(v, values::absolute_path), Row {
        name: "identity-file",
        takes: Text("FILE"),
        help: "The private keys, in age's own file, where WAL is fetched; nobody else may read it",
        ..AGE
    };
    IDENTITY_COMMAND: Vec<String> = |v| all(v, values::text), Row {
        name: "identity-command",
        takes: List("ARGUMENT"),
        secret: true,
        help: "Instead of it a program and its arguments, run without a shell, that prints such a file",
        ..AGE
    };
    REQUIRED: Option<bool> = |v| optional(v, values::boolean), Row {
        name: "required",
        takes: Boolean,
        default: Words("true where recipients or an identity are set"),
        help: "Refuse an archive that is not encrypted",
        ..AGE
    };
    ENCRYPTION: Option<()> = |v| optional(v, values::client_encryption), Row {
        name: "encryption",
        programs: ALL,
        takes: Text("none"),
        scope: Scope::Own,
        help: "Say \"none\" for a plain copy beside encrypted ones",
        ..PLAIN
    };
}

/// Variables that make WAL-G encrypt what it archives.
pub(super) const WAL_G_ENCRYPTION: [&str; 11] = [
    "WALG_CSE_KMS_ID",
    "WALG_LIBSODIUM_KEY",
    "WALG_LIBSODIUM_KEY_PATH",
    "WALG_GPG_KEY_ID",
    "WALE_GPG_KEY_ID",
    "WALG_PGP_KEY",
    "WALG_PGP_KEY_PATH",
    "WALG_ENVELOPE_PGP_KEY",
    "WALG_ENVELOPE_PGP_KEY_PATH",
    "WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID",
    "YC_CSE_KMS_KEY_ID",
];
