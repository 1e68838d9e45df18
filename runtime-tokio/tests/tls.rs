//! The HTTP listener over TLS, against a client that knows its authority, one that does not, and one with a certificate.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::{path::Path, sync::Arc};

use axum::{Router, routing::get};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sider_runtime_tokio::{
    http::HttpServer,
    tls::{Tls, TlsFiles},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `localhost` and its key, in PEM.
fn certificate(issuer: &Issuer) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

fn write(folder: &Path, issuer: &Issuer, verify: bool) -> TlsFiles {
    let (certificate, key) = certificate(issuer);
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    TlsFiles {
        certificate: file("server.crt", &certificate),
        key: file("server.key", &key),
        authority: Some(file("ca.crt", &issuer.pem())),
        verify,
    }
}

async fn serve(tls: Tls) -> (HttpServer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = HttpServer::start_tls(listener, tls).unwrap();
    server.set_router(Some(Router::new().route("/", get(|| async { "secret" }))));
    let address = server.address().unwrap().to_string();
    (server, address)
}

/// What a client is answered that trusts `trusted` and shows what is given.
async fn ask(address: &str, trusted: &Issuer, shown: Option<(String, String)>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_client_that_knows_the_authority_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, other) = (authority(), authority());
    let (_server, address) = serve(Tls::load(write(folder.path(), &issuer, false)).unwrap()).await;
    assert!(ask(&address, &issuer, None).await.unwrap().ends_with("secret"));
    ask(&address, &other, None).await.unwrap_err();
}

#[tokio::test]
async fn clients_without_a_certificate_are_refused_where_they_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, other) = (authority(), authority());
    let (_server, address) = serve(Tls::load(write(folder.path(), &issuer, true)).unwrap()).await;
    ask(&address, &issuer, None).await.unwrap_err();
    ask(&address, &issuer, Some(certificate(&other)))
        .await
        .unwrap_err();
    let answer = ask(&address, &issuer, Some(certificate(&issuer))).await;
    assert!(answer.unwrap().ends_with("secret"));
}

#[tokio::test]
async fn certificates_are_exchanged_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (authority(), authority());
    let tls = Tls::load(write(folder.path(), &before, false)).unwrap();
    let (_server, address) = serve(tls.clone()).await;
    std::fs::write(folder.path().join("server.crt"), "spoilt").unwrap();
    let error = tls.reload().unwrap_err();
    assert!(error.contains("server.crt"), "{error}");
    assert!(ask(&address, &before, None).await.is_ok(), "all stays as it was");
    write(folder.path(), &after, false);
    tls.reload().unwrap();
    assert!(ask(&address, &after, None).await.is_ok());
    ask(&address, &before, None).await.unwrap_err();
}

#[test]
fn what_can_not_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &authority(), true);
    let without = TlsFiles {
        authority: None,
        ..files.clone()
    };
    assert!(Tls::load(without).unwrap_err().contains("authorities"));
    let missing = TlsFiles {
        key: folder.path().join("none.key"),
        ..files
    };
    assert!(Tls::load(missing).unwrap_err().contains("none.key"));
}
