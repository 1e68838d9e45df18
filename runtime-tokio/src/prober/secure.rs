//! Connections to what is probed, and TLS over them.

use std::{
    fmt::Display,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use sider_core::runtime::ProbeTls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
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
    verifying: OnceLock<ClientConfig>,
    taking_any: OnceLock<ClientConfig>,
}

/// TLS as a probe asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secure<'a> {
    authorities: &'a Authorities,
    tls: &'a ProbeTls,
}

impl<'a> Secure<'a> {
    /// By the word of these authorities, unless it is not asked for.
    pub(super) fn new(authorities: &'a Authorities, tls: &'a ProbeTls) -> Self {
        Secure { authorities, tls }
    }

    /// Speaks TLS with the server at `host:port`, and in it a protocol by its name for ALPN, if one is named.
    pub(super) async fn over(
        self,
        stream: TcpStream,
        address: &str,
        protocol: Option<&[u8]>,
    ) -> Result<TlsStream<TcpStream>, String> {
        let host = address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host)
            .trim_matches(['[', ']']);
        let failed = |error: &dyn Display| format!("tls {address}: {error}");
        let name = match self.tls.server_name.as_str() {
            "" => host,
            named => named,
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?;
        let config = match self.tls.skip_verify {
            true => self.authorities.taking_any(),
            false => self.authorities.verifying(),
        };
        let mut config = config.map_err(|error| failed(&error))?;
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        let connector = TlsConnector::from(Arc::new(config));
        connector
            .connect(name, stream)
            .await
            .map_err(|error| failed(&error))
    }
}

impl Authorities {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Authorities {
            file,
            verifying: OnceLock::new(),
            taking_any: OnceLock::new(),
        }
    }

    fn verifying(&self) -> Result<ClientConfig, String> {
        if let Some(config) = self.verifying.get() {
            return Ok(config.clone());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(self.verifying.get_or_init(|| config).clone())
    }

    fn taking_any(&self) -> Result<ClientConfig, String> {
        if let Some(config) = self.taking_any.get() {
            return Ok(config.clone());
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = AnyCertificate(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(self.taking_any.get_or_init(|| config).clone())
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

/// Takes any certificate, of whomever. That the server holds its key is still verified: what a broken handshake would show
/// is shown.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
