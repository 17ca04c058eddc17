//! Where and as whom to connect: the connection string, then a service, then the environment, then
//! defaults, as libpq has it.
//!
//! What libpq knows and this client does not do is refused where it would matter, and passed over
//! where it would not.

use super::hosts::{DEFAULT_DIRECTORIES, Host, Place, hosts};
use super::keywords::{self, Keywords};
use super::password_file::{self, Asked};
use super::{Result, service_file, settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What surrounds the process.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub environment: BTreeMap<String, String>,
    /// The name of the user that the process runs as.
    pub user: Option<String>,
}

/// Everything that is needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Never empty; tried in this order.
    pub hosts: Vec<Host>,
    pub user: String,
    pub application_name: String,
    /// `-c name=value` and the like, for the server's session.
    pub options: Option<String>,
    pub connect_timeout: Duration,
    pub tls: Tls,
}

/// Whether and how the connection is encrypted; never over a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub encryption: Encryption,
    /// Certificates of authorities, `sslrootcert`.
    pub root: Option<PathBuf>,
}

/// How `sslmode` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Never.
    Off,
    /// Where it can be had.
    IfPossible,
    /// Or no connection. Whose certificate it is does not matter, as with libpq.
    Required,
    /// The certificate is of an authority that is known.
    Authority,
    /// And of this host.
    Host,
}

/// Keywords and the variables that stand for them.
const VARIABLES: [(&str, &str); 17] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("requirepeer", "PGREQUIREPEER"),
    ("require_auth", "PGREQUIREAUTH"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// What libpq knows and cannot make this connection less than what was asked for.
const HARMLESS: [&str; 27] = [
    "client_encoding",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "replication",
    "service",
    "servicefile",
    "sslcompression",
    "sslkey",
    "sslkeylogfile",
    "sslnegotiation",
    "sslpassword",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "tcp_user_timeout",
    "sslcertmode",
];

/// What would be promised and is not done: the value that asks for nothing.
const UNDONE: [(&str, &str); 6] = [
    ("sslcert", ""),
    ("sslcrl", ""),
    ("channel_binding", "prefer"),
    ("requirepeer", ""),
    ("require_auth", ""),
    ("target_session_attrs", "any"),
];

impl Parameters {
    /// Resolves a connection string.
    pub fn resolve(text: &str, around: &Surroundings) -> Result<Self> {
        let given = keywords::parse(text).map_err(|what| {
            settings(format!("the connection string cannot be understood: {what}"))
                .hint("write \"host=/var/run/postgresql user=backup\" or \"postgresql://backup@host:5432/\"")
        })?;
        let merged = merged(given, around)?;
        refuse_unknown(&merged)?;
        let get = |keyword: &str| merged.get(keyword).map(String::as_str).filter(|value| !value.is_empty());
        let user = get("user").or(around.user.as_deref()).ok_or_else(|| {
            settings("nothing says as which user to connect").hint("add user=NAME to the connection string")
        })?;
        let mut parameters = Parameters {
            hosts: hosts(get("host"), get("hostaddr"), get("port"))?,
            user: user.to_owned(),
            application_name: get("application_name").unwrap_or("wal-archive").to_owned(),
            options: get("options").map(str::to_owned),
            connect_timeout: connect_timeout(get("connect_timeout"))?,
            tls: tls(get("sslmode"), get("sslrootcert"), around)?,
        };
        let file = get("passfile").map(PathBuf::from).or_else(|| Some(around.home()?.join(".pgpass")));
        parameters.set_passwords(get("password"), file.as_deref());
        Ok(parameters)
    }

    fn set_passwords(&mut self, given: Option<&str>, file: Option<&Path>) {
        for host in &mut self.hosts {
            let name = match &host.at {
                Place::Unix(directory) if DEFAULT_DIRECTORIES.iter().any(|it| Path::new(it) == directory) => {
                    "localhost".to_owned()
                }
                Place::Unix(directory) => directory.display().to_string(),
                Place::Tcp { name, .. } => name.clone(),
            };
            let asked = Asked { host: &name, port: host.port, database: "replication", user: &self.user };
            let from_file = || password_file::password(file?, &asked);
            host.password = given.map(str::to_owned).or_else(from_file);
        }
    }
}

impl Surroundings {
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn home(&self) -> Option<&Path> {
        self.variable("HOME").map(Path::new)
    }

    /// Where services are described: the user's file, then the system's.
    fn service_files(&self, named: Option<&str>) -> Vec<PathBuf> {
        let own = named.or(self.variable("PGSERVICEFILE")).map(PathBuf::from);
        let own = own.or_else(|| Some(self.home()?.join(".pg_service.conf")));
        let system = match self.variable("PGSYSCONFDIR") {
            Some(directory) => vec![PathBuf::from(directory)],
            // Debian's libpq, then those of PostgreSQL's own packages.
            None => ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"].map(PathBuf::from).to_vec(),
        };
        own.into_iter().chain(system.into_iter().map(|folder| folder.join("pg_service.conf"))).collect()
    }
}

/// What is said, and what a service and the environment say where nothing else does.
fn merged(given: Keywords, around: &Surroundings) -> Result<Keywords> {
    let mut merged = given;
    let service = merged.get("service").map(String::as_str).or(around.variable("PGSERVICE"));
    if let Some(name) = service {
        let files = around.service_files(merged.get("servicefile").map(String::as_str));
        for (keyword, value) in service_file::service(name, &files)? {
            merged.entry(keyword).or_insert(value);
        }
    }
    for (keyword, variable) in VARIABLES {
        if let Some(value) = around.variable(variable) {
            merged.entry(keyword.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Ok(merged)
}

fn refuse_unknown(merged: &Keywords) -> Result<()> {
    for (keyword, value) in merged {
        let known =
            HARMLESS.contains(&keyword.as_str()) || VARIABLES.iter().any(|(known, _)| known == keyword);
        if !known {
            return Err(settings(format!("\"{keyword}\" is no keyword of a connection string")));
        }
        let asks =
            |(undone, nothing): &(&str, &str)| undone == keyword && nothing != value && !value.is_empty();
        if UNDONE.iter().any(asks) && !(keyword == "channel_binding" && value == "disable") {
            return Err(settings(format!("{keyword}={value} is not supported here"))
                .hint("leave it out of the connection string, the service and the environment"));
        }
    }
    Ok(())
}

/// Endless waiting, libpq's default, is nothing for a program that nobody watches.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

fn connect_timeout(text: Option<&str>) -> Result<Duration> {
    let Some(text) = text else { return Ok(CONNECT_TIMEOUT) };
    match text.parse::<i64>() {
        Ok(seconds) => Ok(u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map_or(CONNECT_TIMEOUT, |seconds| Duration::from_secs(seconds.max(2)))),
        Err(_) => Err(settings(format!("connect_timeout \"{text}\" is no number of seconds"))),
    }
}

fn tls(mode: Option<&str>, root: Option<&str>, around: &Surroundings) -> Result<Tls> {
    if root == Some("system") {
        return Err(settings("sslrootcert=system is not supported here")
            .hint("name the file of the authorities, such as /etc/ssl/certs/ca-certificates.crt"));
    }
    let own = || Some(around.home()?.join(".postgresql/root.crt")).filter(|path| path.exists());
    let root = root.map(PathBuf::from).or_else(own);
    let encryption = match mode {
        Some("disable" | "allow") => Encryption::Off,
        // With a certificate to check by, libpq checks it.
        Some("require") if root.is_some() => Encryption::Authority,
        Some("require") => Encryption::Required,
        Some("verify-ca") => Encryption::Authority,
        Some("verify-full") => Encryption::Host,
        Some("prefer") | None => Encryption::IfPossible,
        Some(other) => return Err(settings(format!("sslmode \"{other}\" is not known"))),
    };
    Ok(Tls { encryption, root })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn around(variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Surroundings { environment: variables.collect(), user: Some("me".to_owned()) }
    }

    fn resolve(text: &str, variables: &[(&str, &str)]) -> Parameters {
        Parameters::resolve(text, &around(variables)).unwrap()
    }

    fn refused(text: &str) -> String {
        Parameters::resolve(text, &around(&[])).unwrap_err().message
    }

    fn shown(parameters: &Parameters) -> Vec<String> {
        parameters.hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_said_means_the_local_server_as_the_user_of_the_system() {
        let found = resolve("", &[]);
        assert_eq!(shown(&found), ["/var/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5432"]);
        assert_eq!((found.user.as_str(), found.tls.encryption), ("me", Encryption::IfPossible));
    }

    #[test]
    fn the_string_comes_before_the_service_and_the_service_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        fs::write(&file, "[s]\nhost=of-service\nport=1\nuser=of-service\n").unwrap();
        let variables = [
            ("PGSERVICEFILE", file.to_str().unwrap()),
            ("PGHOST", "of-environment"),
            ("PGUSER", "of-environment"),
            ("PGAPPNAME", "of-environment"),
        ];
        let found = resolve("service=s user=of-string", &variables);
        assert_eq!(shown(&found), ["of-service:1"]);
        assert_eq!((found.user.as_str(), found.application_name.as_str()), ("of-string", "of-environment"));
        let by_variable = [variables.as_slice(), &[("PGSERVICE", "s")]].concat();
        assert_eq!(resolve("", &by_variable).user, "of-service");
        assert_eq!(shown(&resolve("", &variables)), ["of-environment:5432"]);
    }

    #[test]
    fn several_hosts_have_one_port_or_a_port_each() {
        assert_eq!(shown(&resolve("host=a,/run port=1", &[])), ["a:1", "/run/.s.PGSQL.1"]);
        assert_eq!(shown(&resolve("host=a,b port=1,2", &[])), ["a:1", "b:2"]);
        let found = resolve("host=a hostaddr=::1", &[]);
        assert_eq!(found.hosts[0].at, Place::Tcp { name: "a".into(), address: Some("::1".parse().unwrap()) });
        assert!(refused("host=a,b,c port=1,2").contains("2 ports for 3 hosts"));
        assert!(refused("host=a hostaddr=1,2").contains("addresses"));
        assert!(refused("hostaddr=localhost").contains("IP address"));
        assert!(refused("port=0").contains("port"));
    }

    #[test]
    fn what_is_promised_nowhere_is_refused() {
        for bad in [
            "hots=a",
            "requirepeer=postgres",
            "channel_binding=require",
            "sslmode=maybe",
            "sslcert=/x",
            "host=@x",
        ] {
            assert!(Parameters::resolve(bad, &around(&[])).is_err(), "{bad}");
        }
        resolve("channel_binding=disable target_session_attrs=any keepalives=1 dbname=x", &[]);
        assert_eq!(resolve("sslmode=require", &[]).tls.encryption, Encryption::Required);
        assert_eq!(resolve("sslmode=require sslrootcert=/x", &[]).tls.encryption, Encryption::Authority);
    }

    #[test]
    fn the_password_is_that_of_the_string_the_environment_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".pgpass");
        fs::write(&file, "a:5432:replication:me:of-a\nlocalhost:*:*:*:local\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let home = ("HOME", folder.path().to_str().unwrap());
        let first = |found: Parameters| found.hosts[0].password.clone();
        assert_eq!(first(resolve("host=a", &[home])).as_deref(), Some("of-a"));
        assert_eq!(first(resolve("host=b", &[home])), None);
        assert_eq!(first(resolve("", &[home])).as_deref(), Some("local"));
        assert_eq!(first(resolve("host=a password=x", &[home])).as_deref(), Some("x"));
        assert_eq!(first(resolve("host=a", &[home, ("PGPASSWORD", "y")])).as_deref(), Some("y"));
        assert!(!format!("{:?}", resolve("host=a password=secret", &[])).contains("secret"));
    }
}
