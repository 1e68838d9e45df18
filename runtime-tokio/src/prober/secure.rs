//! Connections to what is probed, and TLS over them.

use std::{
    fmt::Display,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// Bytes in both directions, in whatever way they go.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where hosts keep the certificates of those whom they trust.
const TRUSTED: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

pub(super) async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address)
        .await
        .map_err(|error| format!("dial tcp {address}: {error}"))
}

/// Whose word about servers is taken: those whom this host trusts, unless a file of others is named. Read once.
#[derive(Debug)]
pub(super) struct Authorities {
    file: Option<PathBuf>,
    config: OnceLock<ClientConfig>,
}

impl Authorities {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Authorities {
            file,
            config: OnceLock::new(),
        }
    }

    /// Speaks TLS with the server at `host:port`, and in it a protocol by its name for ALPN.
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        address: &str,
        protocol: &[u8],
    ) -> Result<TlsStream<TcpStream>, String> {
        let host = address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host)
            .trim_matches(['[', ']']);
        let failed = |error: &dyn Display| format!("tls {address}: {error}");
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let mut config = self.config().map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        connector
            .connect(name, stream)
            .await
            .map_err(|error| failed(&error))
    }

    fn config(&self) -> Result<ClientConfig, String> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(self.config.get_or_init(|| config).clone())
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let files = match &self.file {
            Some(file) => vec![file.clone()],
            None => named.into_iter().chain(TRUSTED.map(PathBuf::from)).collect(),
        };
        let mut found = files
            .iter()
            .filter_map(|path| CertificateDer::pem_file_iter(path).ok());
        let found = found
            .next()
            .ok_or("this host has no file of authorities that it trusts")?;
        // Some of a long list may be of a kind that is not known.
        roots.add_parsable_certificates(found.flatten());
        Ok(roots)
    }
}
