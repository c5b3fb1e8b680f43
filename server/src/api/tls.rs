//! TLS by rustls. Certificate and key are read again when their files change: new connections get
//! the new ones, those that are open go on. A pair that cannot be used leaves the old one in use.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use tokio_rustls::client;
use tokio_rustls::server::TlsStream;

use crate::config::ConfigError;
use crate::config::TlsFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What new connections are encrypted with; clones share it.
#[derive(Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads both files; from then on they are watched for as long as a clone of this lives.
    pub fn open(files: &TlsFiles) -> Result<Self, ConfigError> {
        let read = Pair::read(files)?;
        let (sender, current) = watch::channel(read.config()?);
        tokio::spawn(follow(files.clone(), read, sender));
        Ok(Self { current })
    }

    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.borrow());
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// Whom to believe on the other side of a connection that this process opens.
#[derive(Clone)]
pub struct Trust {
    connector: TlsConnector,
}

impl Trust {
    /// Only who shows a certificate of this PEM file, or one that is signed by one of it.
    pub fn open(file: &Path) -> Result<Self, ConfigError> {
        let wrong = |what: String| ConfigError(format!("--api-ca: {}: {what}", file.display()));
        let pem = fs::read(file).map_err(|e| wrong(e.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| wrong(format!("not PEM: {e}")))?;
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("there is no certificate in it".into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| ConfigError(format!("TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: Arc::new(config).into() })
    }

    /// Encrypts a connection to `host`, once that has shown who it is.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

/// The bytes of both files.
#[derive(PartialEq, Eq)]
struct Pair {
    files: TlsFiles,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Self, ConfigError> {
        let read = |flag: &str, path: &Path| {
            fs::read(path)
                .map_err(|e| ConfigError(format!("{flag}: cannot read {}: {e}", path.display())))
        };
        let cert = read("--tls-cert", &files.cert)?;
        Ok(Self { cert, key: read("--tls-key", &files.key)?, files: files.clone() })
    }

    fn config(&self) -> Result<Arc<ServerConfig>, ConfigError> {
        let wrong = |flag: &str, path: &Path, what: &str| {
            ConfigError(format!("{flag}: {}: {what}", path.display()))
        };
        let (cert, key) = (&self.files.cert, &self.files.key);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|e| wrong("--tls-cert", cert, &format!("not PEM: {e}")))?;
        if chain.is_empty() {
            let what = "there is no certificate in it (PEM, -----BEGIN CERTIFICATE-----)";
            return Err(wrong("--tls-cert", cert, what));
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| {
            let what = format!("there is no private key in it (PEM, without a password): {e}");
            wrong("--tls-key", key, &what)
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| ConfigError(format!("TLS: {e}")))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => wrong(
                    "--tls-key",
                    key,
                    &format!("it is not the key of the certificate in {}", cert.display()),
                ),
                other => wrong("--tls-cert", cert, &format!("cannot be used: {other}")),
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Looks at the files again and again; ends when nobody serves with them any more.
async fn follow(files: TlsFiles, mut seen: Pair, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut trouble = None;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let reading = files.clone();
        let read = tokio::task::spawn_blocking(move || Pair::read(&reading)).await;
        let Ok(read) = read else { continue };
        let changed = match read {
            Ok(pair) if pair == seen => continue,
            Ok(pair) => {
                let config = pair.config();
                seen = pair;
                config
            }
            Err(e) => Err(e),
        };
        match changed {
            Ok(config) => {
                sender.send_replace(config);
                trouble = None;
                metrics::counter!("drivefs_tls_reloads_total").increment(1);
                tracing::info!(cert = %files.cert.display(), "TLS certificate and key read again");
            }
            // One of the two is often replaced a little before the other.
            Err(e) if trouble.as_ref() != Some(&e) => {
                tracing::error!(error = %e, "the old TLS certificate stays in use");
                trouble = Some(e);
            }
            Err(_) => {}
        }
    }
}
