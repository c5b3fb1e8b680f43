//! Settings of the server: flags, then the file, then defaults. Reads no database.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use drivefs_core::limits::FILE_MAX_BYTES_DEFAULT;
use drivefs_core::limits::QUOTA_BYTES_DEFAULT;
use serde::Deserialize;

const PORT_DEFAULT: u16 = 7440;
const COLD_AFTER_DAYS: u32 = 90;
const MIN_FREE_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;
const SCRUB_RATE_DEFAULT: u64 = 4 * 1024 * 1024;
const SESSION_IDLE_SECS_DEFAULT: i64 = 365 * 86_400;

/// A setting that cannot be; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What a process does of all that a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accounts, commits, reading the tree.
    Api,
    /// Blocks in and out.
    Blocks,
    /// Long polls.
    Notify,
    /// Background work: history policy, collection, compaction.
    Jobs,
}

pub const ALL_ROLES: [Role; 4] = [Role::Api, Role::Blocks, Role::Notify, Role::Jobs];

/// PEM files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate and those that lead to its root.
    pub cert: PathBuf,
    /// Private key of it.
    pub key: PathBuf,
}

/// Where another process with the role api is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiLink {
    pub url: String,
    /// PEM file of the certificate that it is known by, for https.
    pub ca: Option<PathBuf>,
}

/// Settings, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    /// Allows plain HTTP beyond this machine.
    pub insecure: bool,
    /// None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Most connections at once; none: as many as the limit of open files allows.
    pub connections_max: Option<usize>,
    /// Folder of everything that the server keeps, unless the next two say otherwise.
    pub data: PathBuf,
    /// SQLite file.
    pub metadata: PathBuf,
    /// Folder of packs.
    pub blocks: PathBuf,
    pub roles: Vec<Role>,
    /// A process with the role api, for one without it.
    pub api: Option<ApiLink>,
    pub file_max_bytes: u64,
    /// Quota of accounts that are made without one; none leaves what was set before.
    pub default_quota_bytes: Option<u64>,
    /// Packs are refused when the data disk has less left (bytes).
    pub min_free_bytes: u64,
    /// Where packs go that nobody reads.
    pub cold: Option<Cold>,
    /// Packs are read again to find damage, so many bytes a second; 0 for never.
    pub scrub_rate: u64,
    /// A device that was not seen for so long has to log in again (seconds).
    pub session_idle_secs: Option<i64>,
    /// Longest life of a token for scripts (seconds).
    pub token_max_secs: Option<i64>,
}

/// The second store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cold {
    pub dir: PathBuf,
    pub after_days: u32,
    pub slow: bool,
}

/// Where the data is: for all commands.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// Folder of the server's data [default: $XDG_DATA_HOME/drivefs-server or
    /// ~/.local/share/drivefs-server]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Settings file (TOML); its keys are the long flags, e.g. `data = "/srv/drivefs"`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Metadata database: a path or file:// URL of a SQLite file [default: DATA/metadata.db]
    #[arg(long, value_name = "URL")]
    pub metadata: Option<String>,
}

/// Where packs lie: for all commands that read them.
#[derive(Debug, Clone, Default, Args)]
pub struct Stores {
    /// Where packs lie, as for `serve`: a path or file:// URL [default: DATA/blocks]
    #[arg(long, value_name = "URL")]
    pub blocks: Option<String>,
    /// Second store, if there is one: as for `serve`
    #[arg(long, value_name = "URL")]
    pub cold: Option<String>,
}

/// Settings of `serve`; the file takes the same names.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Where packs lie: a path or file:// URL [default: DATA/blocks]
    #[arg(long, value_name = "URL")]
    pub blocks: Option<String>,
    /// Second, cheaper store for packs that nobody has read for long: a path or file:// URL
    #[arg(long, value_name = "URL")]
    pub cold: Option<String>,
    /// Packs go to the second store when nobody has read them for so many days [default: 90]
    #[arg(long, value_name = "DAYS")]
    pub cold_after: Option<u32>,
    /// Reading from the second store takes long: who wants something from there is told that it is
    /// being brought back
    #[arg(long)]
    pub cold_slow: bool,
    /// What this process does, separated by commas: api, blocks, notify, jobs [default: all]
    #[arg(long, value_name = "LIST")]
    pub roles: Option<String>,
    /// Where a process with the role api is, for one without it: uploads whose last block is stored
    /// are ended there, e.g. http://127.0.0.1:7440
    #[arg(long, value_name = "URL")]
    pub api_url: Option<String>,
    /// Certificate that an https --api-url is known by, or that of its authority (PEM file)
    #[arg(long, value_name = "FILE")]
    pub api_ca: Option<PathBuf>,
    /// Listen beyond this machine although nothing encrypts the traffic
    #[arg(long)]
    pub insecure: bool,
    /// Certificate chain for HTTPS (PEM file); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM file)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Most connections at once [default: what the limit of open files allows]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// Largest file, e.g. 10GiB [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub max_file: Option<String>,
    /// Quota of accounts added without one [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub default_quota: Option<String>,
    /// Refuse uploads when the data disk has less free [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub min_free: Option<String>,
    /// Read all packs again once a week, so many bytes a second; 0 for never [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    pub scrub_rate: Option<String>,
    /// A device that was not seen for so long has to log in again; 0 for never [default: 365d]
    #[arg(long, value_name = "TIME")]
    pub session_idle: Option<String>,
    /// Longest life of tokens for scripts; 0 for any [default: 0]
    #[arg(long, value_name = "TIME")]
    pub token_lifetime: Option<String>,
    /// In the file alone; as a flag it is in `Place`.
    #[arg(skip)]
    pub data: Option<PathBuf>,
    /// As `data`.
    #[arg(skip)]
    pub metadata: Option<String>,
}

impl Config {
    /// A server on a free loopback port with all its data in one folder.
    pub fn local(data: &Path) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            insecure: false,
            tls: None,
            connections_max: None,
            data: data.to_owned(),
            metadata: data.join("metadata.db"),
            blocks: data.join("blocks"),
            roles: ALL_ROLES.to_vec(),
            api: None,
            file_max_bytes: FILE_MAX_BYTES_DEFAULT,
            default_quota_bytes: None,
            min_free_bytes: MIN_FREE_BYTES_DEFAULT,
            cold: None,
            scrub_rate: SCRUB_RATE_DEFAULT,
            session_idle_secs: Some(SESSION_IDLE_SECS_DEFAULT),
            token_max_secs: None,
        }
    }

    /// For a command that works on the packs.
    pub fn with_stores(place: &Place, stores: Stores) -> Result<Self, ConfigError> {
        let Stores { blocks, cold } = stores;
        // The listening address of a settings file is none of its business.
        Self::resolve(place, Settings { blocks, cold, insecure: true, ..Settings::default() })
    }

    /// Flags over file over defaults.
    pub fn resolve(place: &Place, flags: Settings) -> Result<Self, ConfigError> {
        let file = match &place.config {
            Some(path) => read_file(path)?,
            None => Settings::default(),
        };
        let data = match place.data.clone().or(file.data) {
            Some(dir) => dir,
            None => default_data_dir()?,
        };
        let mut config = Self::local(&data);
        let listen = flags.listen.or(file.listen);
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT));
        config.listen = listen.map_or(Ok(default), |text| parse_listen(&text))?;
        config.insecure = flags.insecure || file.insecure;
        if let Some(url) = place.metadata.clone().or(file.metadata) {
            config.metadata = local_path("--metadata", &url, "a SQLite file")?;
        }
        if let Some(url) = flags.blocks.or(file.blocks) {
            config.blocks = local_path("--blocks", &url, "a local folder")?;
        }
        if let Some(url) = flags.cold.or(file.cold) {
            config.cold = Some(Cold {
                dir: local_path("--cold", &url, "a local folder")?,
                after_days: flags.cold_after.or(file.cold_after).unwrap_or(COLD_AFTER_DAYS),
                slow: flags.cold_slow || file.cold_slow,
            });
        } else if flags.cold_after.is_some() || flags.cold_slow {
            return Err(ConfigError("--cold-after and --cold-slow go with --cold URL".into()));
        }
        if let Some(list) = flags.roles.or(file.roles) {
            config.roles = parse_roles(&list)?;
        }
        let ca = flags.api_ca.or(file.api_ca);
        config.api = match flags.api_url.or(file.api_url) {
            Some(url) => Some(ApiLink { url, ca }),
            None if ca.is_some() => {
                return Err(ConfigError("--api-ca goes with --api-url https://...".into()));
            }
            None => None,
        };
        if config.api.is_some() && config.roles.contains(&Role::Api) {
            return Err(ConfigError(
                "--api-url is for a process without the role api; this one has it".into(),
            ));
        }
        if let Some(text) = flags.max_file.or(file.max_file) {
            config.file_max_bytes = parse_size(&text)?;
        }
        if let Some(text) = flags.default_quota.or(file.default_quota) {
            config.default_quota_bytes = Some(parse_size(&text)?);
        }
        if let Some(text) = flags.min_free.or(file.min_free) {
            config.min_free_bytes = parse_size(&text)?;
        }
        if let Some(text) = flags.scrub_rate.or(file.scrub_rate) {
            config.scrub_rate = parse_size(&text)?;
        }
        if let Some(text) = flags.session_idle.or(file.session_idle) {
            config.session_idle_secs = parse_time(&text)?;
        }
        if let Some(text) = flags.token_lifetime.or(file.token_lifetime) {
            config.token_max_secs = parse_time(&text)?;
        }
        config.tls = tls_of(flags.tls_cert.or(file.tls_cert), flags.tls_key.or(file.tls_key))?;
        config.connections_max = flags.max_connections.or(file.max_connections);
        if config.connections_max == Some(0) {
            return Err(ConfigError("--max-connections: at least 1".into()));
        }
        if !config.listen.ip().is_loopback() && config.tls.is_none() && !config.insecure {
            return Err(ConfigError(format!(
                "refusing to listen on {} without TLS: passwords and files would travel in the \
                 clear. Give --tls-cert and --tls-key, listen on 127.0.0.1 behind a TLS proxy, or \
                 add --insecure on a network that you trust",
                config.listen
            )));
        }
        Ok(config)
    }
}

/// Quota of an account where nobody said anything (bytes).
pub fn builtin_quota_bytes() -> u64 {
    QUOTA_BYTES_DEFAULT
}

/// A size like `10GiB`, `500MB`, `1.5 GiB` or plain bytes.
pub fn parse_size(text: &str) -> Result<u64, ConfigError> {
    let wrong = || ConfigError(format!("{text:?} is not a size; write bytes or e.g. 500MB, 10GiB"));
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "kb" => 1_000,
        "m" | "mi" | "mib" => 1 << 20,
        "mb" => 1_000_000,
        "g" | "gi" | "gib" => 1 << 30,
        "gb" => 1_000_000_000,
        "t" | "ti" | "tib" => 1 << 40,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(scale).ok_or_else(wrong)?,
        Err(_) => {
            let bytes = number.parse::<f64>().map_err(|_| wrong())? * scale as f64;
            if bytes.is_finite() && bytes < 9e18 { bytes as u64 } else { return Err(wrong()) }
        }
    };
    if i64::try_from(bytes).is_ok() { Ok(bytes) } else { Err(wrong()) }
}

/// A time like `90d`, `12h`, `30m` or plain seconds (seconds); none for 0.
pub fn parse_time(text: &str) -> Result<Option<i64>, ConfigError> {
    let wrong = || ConfigError(format!("{text:?} is not a time; write e.g. 90d, 12h, 30m"));
    let trimmed = text.trim();
    let (number, scale) = match trimmed.as_bytes().last() {
        Some(b'd') => (&trimmed[..trimmed.len() - 1], 86_400),
        Some(b'h') => (&trimmed[..trimmed.len() - 1], 3600),
        Some(b'm') => (&trimmed[..trimmed.len() - 1], 60),
        Some(b's') => (&trimmed[..trimmed.len() - 1], 1),
        _ => (trimmed, 1),
    };
    let number: u32 = number.trim().parse().map_err(|_| wrong())?;
    Ok(Some(i64::from(number) * scale).filter(|secs| *secs > 0))
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError(format!("cannot read {}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| ConfigError(format!("{}: {e}", path.display())))
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("drivefs-server"))
        .ok_or_else(|| ConfigError("there is no home folder; say where with --data DIR".into()))
}

fn tls_of(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (Some(_), None) => Err(ConfigError("--tls-cert needs --tls-key beside it".into())),
        (None, Some(_)) => Err(ConfigError("--tls-key needs --tls-cert beside it".into())),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.replace("localhost", "127.0.0.1");
    text.parse().map_err(|_| {
        ConfigError(format!("{text:?} is not an address; write it like 127.0.0.1:7440"))
    })
}

fn parse_roles(list: &str) -> Result<Vec<Role>, ConfigError> {
    list.split(',')
        .map(|name| match name.trim() {
            "api" => Ok(Role::Api),
            "blocks" => Ok(Role::Blocks),
            "notify" => Ok(Role::Notify),
            "jobs" => Ok(Role::Jobs),
            name @ ("web" | "dav") => Err(ConfigError(format!(
                "--roles: this version does not have the role {name} yet; it has api, blocks, notify, jobs"
            ))),
            name => Err(ConfigError(format!(
                "--roles: there is no role {name:?}; there are api, blocks, notify, jobs"
            ))),
        })
        .collect()
}

fn local_path(flag: &str, url: &str, kind: &str) -> Result<PathBuf, ConfigError> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(PathBuf::from(path));
    }
    match url.split_once("://") {
        Some((scheme, _)) => Err(ConfigError(format!(
            "{flag}: this version does not have {scheme}:// yet, only {kind}: a path or file:// URL"
        ))),
        None => Ok(PathBuf::from(url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("500MB"), Ok(500_000_000));
        assert_eq!(parse_size("1.5 KiB"), Ok(1536));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "GiB", "-1", "1 parsec", "99999999999TiB", "1e3"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(parse_time("90d"), Ok(Some(90 * 86_400)));
        assert_eq!(parse_time("12h"), Ok(Some(43_200)));
        assert_eq!(parse_time("45"), Ok(Some(45)));
        assert_eq!(parse_time("0"), Ok(None));
        for wrong in ["", "d", "-1d", "1w", "99999999999d"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn beyond_loopback_needs_insecure() {
        let place = Place { data: Some("/nowhere".into()), ..Place::default() };
        let flags = Settings { listen: Some("0.0.0.0:1".into()), ..Settings::default() };
        let Err(ConfigError(text)) = Config::resolve(&place, flags.clone()) else {
            panic!("refused")
        };
        assert!(text.contains("--insecure"), "{text}");
        assert!(Config::resolve(&place, Settings { insecure: true, ..flags }).is_ok());
    }

    #[test]
    fn what_this_version_lacks_is_said_clearly() {
        let place = Place { data: Some("/nowhere".into()), ..Place::default() };
        let with = |change: fn(&mut Settings)| {
            let mut flags = Settings::default();
            change(&mut flags);
            Config::resolve(&place, flags).map(drop).expect_err("not there yet").0
        };
        assert!(with(|s| s.cold = Some("s3://x".into())).contains("s3://"));
        assert!(with(|s| s.blocks = Some("s3://x".into())).contains("s3://"));
        assert!(with(|s| s.roles = Some("api,web".into())).contains("web"));
        let place = Place { metadata: Some("postgres://x".into()), ..place.clone() };
        let error = Config::resolve(&place, Settings::default()).expect_err("not there yet");
        assert!(error.0.contains("postgres://"));
    }

    #[test]
    fn a_file_gives_what_flags_do_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("drivefs.toml");
        std::fs::write(&path, "data = \"/srv/d\"\nlisten = \"127.0.0.1:1\"\nmax-file = \"1MB\"\n")
            .expect("written");
        let place = Place { config: Some(path.clone()), ..Place::default() };
        let flags = Settings { listen: Some("127.0.0.1:2".into()), ..Settings::default() };
        let config = Config::resolve(&place, flags).expect("good");
        assert_eq!(config.data, PathBuf::from("/srv/d"));
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.file_max_bytes, 1_000_000);
        std::fs::write(&path, "lissten = \"x\"\n").expect("written");
        let error = Config::resolve(&place, Settings::default()).expect_err("a typo");
        assert!(error.0.contains("lissten"), "{error}");
    }
}
