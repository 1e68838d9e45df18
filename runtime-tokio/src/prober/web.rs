//! HTTP probes: a request, those that its redirects lead to, and what is kept of the answer.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header,
    uri::{InvalidUri, PathAndQuery},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use sider_core::{
    limits,
    runtime::{ProbeOutcome, ProbeTls},
};

use super::{
    ProcessProber, cut,
    redirect::redirected,
    secure::{Secure, connect},
};
use crate::network::root_cause;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) url: Uri,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    /// A request as a check describes it.
    pub(super) fn new(
        url: &str,
        method: &str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<Asked, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{method} {url}: {error}");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(&error))?;
            let value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
            map.append(name, value);
        }
        // As Consul's checks do: some services look at who asks, or for what.
        for (name, usual) in [
            (header::USER_AGENT, "Consul Health Check"),
            (header::ACCEPT, "text/plain, text/*, */*"),
        ] {
            map.entry(name).or_insert(HeaderValue::from_static(usual));
        }
        Ok(Asked {
            url: url.parse().map_err(|error: InvalidUri| failed(&error))?,
            method: Method::from_bytes(method.as_bytes()).map_err(|error| failed(&error))?,
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl ProcessProber {
    pub(super) async fn http(
        &self,
        mut asked: Asked,
        tls: &ProbeTls,
        follows_redirects: bool,
    ) -> Result<ProbeOutcome, String> {
        for _ in 0..limits::PROBE_REQUESTS_MAX {
            let failed = |error: String| format!("{} {}: {error}", asked.method, asked.url);
            let response = self.ask(&asked, tls).await.map_err(failed)?;
            let next = match follows_redirects {
                true => redirected(&asked, response.status(), response.headers()).map_err(failed)?,
                false => None,
            };
            match next {
                Some(next) => asked = next,
                None => return Ok(outcome(response).await),
            }
        }
        Err(format!(
            "{} {}: stopped after {} redirects",
            asked.method,
            asked.url,
            limits::PROBE_REQUESTS_MAX
        ))
    }

    async fn ask(&self, asked: &Asked, tls: &ProbeTls) -> Result<Response<Incoming>, String> {
        match asked.url.scheme_str() {
            Some("http") => {
                let response = self.http.request(asked.request()).await;
                response.map_err(|error| root_cause(&error))
            }
            Some("https") => self.https(asked.request(), tls).await,
            _ => Err("only http:// and https:// URLs can be probed".to_owned()),
        }
    }

    /// A request over a TLS connection of its own.
    async fn https(
        &self,
        mut request: Request<Full<Bytes>>,
        tls: &ProbeTls,
    ) -> Result<Response<Incoming>, String> {
        let authority = request.uri().authority().ok_or("it names no host")?.clone();
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443));
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        *request.uri_mut() = path.parse().map_err(|error: InvalidUri| error.to_string())?;
        let stream = connect(&address).await?;
        let secure = Secure::new(&self.authorities, tls);
        let stream = secure.over(stream, &address, Some(b"http/1.1")).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| root_cause(&error))?;
        // It ends with the answer.
        tokio::spawn(connection);
        let response = sender.send_request(request).await;
        response.map_err(|error| root_cause(&error))
    }
}

async fn outcome(response: Response<Incoming>) -> ProbeOutcome {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut output = Vec::new();
    // The status has been sent: a body that breaks off, or is longer than what is kept, does not change it.
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            output.extend_from_slice(data);
        }
        if output.len() >= limits::CHECK_OUTPUT_BYTES_MAX {
            break;
        }
    }
    ProbeOutcome::HttpStatus {
        status,
        output: cut(&output),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc, time::Duration};

    use sider_core::runtime::{Probe, Prober as _};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    };

    use super::*;
    use crate::prober::secure::Authorities;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Answers every connection with `answer`; gives what the first one asked.
    async fn answer_with(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = tokio::spawn(async move {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, asked)
    }

    fn get(url: String) -> Probe {
        Probe::Http {
            url,
            method: "GET".into(),
            headers: vec![("X-Probe".into(), "yes".into())],
            body: String::new(),
            tls: ProbeTls::default(),
            follows_redirects: true,
        }
    }

    #[tokio::test]
    async fn an_http_answer_gives_status_and_body() {
        let (address, asked) = answer_with("HTTP/1.1 429 Busy\r\nContent-Length: 5\r\n\r\nlater").await;
        let outcome = ProcessProber::default()
            .probe(&get(format!("http://{address}/health?full=1")), PATIENCE)
            .await;
        assert_eq!(
            outcome,
            ProbeOutcome::HttpStatus {
                status: 429,
                output: "later".into()
            }
        );
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /health?full=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("x-probe: yes"), "{asked}");
        // Whom and what a check names no other for.
        assert!(asked.contains("user-agent: Consul Health Check\r\n"), "{asked}");
        assert!(asked.contains("accept: text/plain, text/*, */*\r\n"), "{asked}");
    }

    #[test]
    fn a_check_says_who_asks_and_for_what() {
        let named = [("User-Agent", "mine"), ("accept", "application/json")];
        let named = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let asked = Asked::new("http://localhost/", "GET", &named, "").unwrap();
        assert_eq!(asked.headers[header::USER_AGENT], "mine");
        assert_eq!(asked.headers[header::ACCEPT], "application/json");
        assert_eq!(asked.headers.len(), 2);
    }

    /// A server of TLS with a certificate of its own making for the name `localhost`; gives its port, and the certificate's
    /// file in the folder.
    async fn serve_by_tls(folder: &tempfile::TempDir) -> (u16, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let file = folder.path().join("trusted.pem");
        std::fs::write(&file, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut asked = [0; 1024];
                let Ok(length) = stream.read(&mut asked).await else {
                    continue;
                };
                let asked = String::from_utf8_lossy(&asked[..length]).to_ascii_lowercase();
                let answer = match asked.starts_with("get /health?a=1 http/1.1") {
                    // The name that was asked for in the handshake.
                    true => format!(
                        "HTTP/1.1 200 OK\r\n\r\n{}",
                        stream.get_ref().1.server_name().unwrap_or("")
                    ),
                    false => "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
                };
                // Whoever only wanted to shake hands is gone.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (port, file)
    }

    fn trusting(file: PathBuf) -> ProcessProber {
        ProcessProber {
            authorities: Arc::new(Authorities::new(Some(file))),
            ..ProcessProber::default()
        }
    }

    /// The answer of that server to whom asked it for this name.
    fn answered(name: &str) -> ProbeOutcome {
        ProbeOutcome::HttpStatus {
            status: 200,
            output: name.into(),
        }
    }

    fn by(url: String, said: ProbeTls) -> Probe {
        let mut probe = get(url);
        if let Probe::Http { tls, .. } = &mut probe {
            *tls = said;
        }
        probe
    }

    fn assert_failed(outcome: &ProbeOutcome, reason: &str) {
        assert!(
            matches!(outcome, ProbeOutcome::Failed { output } if output.contains(reason)),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn a_server_is_asked_by_tls_if_it_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let (port, file) = serve_by_tls(&folder).await;
        let url = format!("https://localhost:{port}/health?a=1");
        let trusting = trusting(file);
        assert_eq!(
            trusting.probe(&get(url.clone()), PATIENCE).await,
            answered("localhost")
        );
        // Another name than that of the certificate, and a host that trusts others.
        let outcome = trusting
            .probe(&get(format!("https://127.0.0.1:{port}/")), PATIENCE)
            .await;
        assert_failed(&outcome, "certificate");
        assert_failed(&ProcessProber::default().probe(&get(url), PATIENCE).await, "tls");
    }

    #[tokio::test]
    async fn the_name_to_verify_and_whether_to_verify_are_the_checks_to_say() {
        let folder = tempfile::tempdir().unwrap();
        let (port, file) = serve_by_tls(&folder).await;
        let trusting = trusting(file);
        let url = format!("https://127.0.0.1:{port}/health?a=1");
        let named = |server_name: &str| ProbeTls {
            server_name: server_name.into(),
            skip_verify: false,
        };
        let any = ProbeTls {
            skip_verify: true,
            ..ProbeTls::default()
        };
        let of = |tls: &ProbeTls| by(url.clone(), tls.clone());
        assert_eq!(
            trusting.probe(&of(&named("localhost")), PATIENCE).await,
            answered("localhost")
        );
        let other = trusting.probe(&of(&named("other")), PATIENCE).await;
        assert_failed(&other, "certificate");
        let odd = trusting.probe(&of(&named("no name")), PATIENCE).await;
        assert_failed(&odd, "tls");
        let nobody = ProcessProber::default();
        assert_eq!(nobody.probe(&of(&any), PATIENCE).await, answered(""));

        // A connection that shakes hands.
        let tcp = |tls: Option<ProbeTls>| Probe::Tcp {
            address: format!("127.0.0.1:{port}"),
            tls,
        };
        for tls in [None, Some(any.clone())] {
            assert_eq!(nobody.probe(&tcp(tls), PATIENCE).await, ProbeOutcome::Connected);
        }
        let refused = nobody.probe(&tcp(Some(named("localhost"))), PATIENCE).await;
        assert_failed(&refused, "tls 127.0.0.1");
        let trusted = trusting.probe(&tcp(Some(named("localhost"))), PATIENCE).await;
        assert_eq!(trusted, ProbeOutcome::Connected);
        let (plain, _) = answer_with("no TLS").await;
        let outcome = nobody
            .probe(
                &Probe::Tcp {
                    address: plain,
                    tls: Some(any),
                },
                PATIENCE,
            )
            .await;
        assert_failed(&outcome, "tls");
    }

    /// Answers each request by its path: `/n` leads to the one before it by `Location: n - 1`, and `0` is told what was
    /// asked.
    async fn lead_down() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let (status, steps) = path[1..].split_once('/').unwrap_or(("200", "0"));
                let answer = match steps.parse::<u32>() {
                    Ok(steps @ 1..) => format!("HTTP/1.1 {status} There\r\nLocation: {}\r\n\r\n", steps - 1),
                    _ => {
                        let first = request.lines().next().unwrap_or_default();
                        let last = request.lines().last().unwrap_or_default();
                        format!("HTTP/1.1 200 OK\r\n\r\n{first} {last}")
                    }
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn redirects_are_followed_up_to_a_limit_unless_one_is_the_answer() {
        let address = lead_down().await;
        let prober = ProcessProber::default();
        let probe = |path: &str, follows: bool| {
            let mut probe = get(format!("http://{address}{path}"));
            if let Probe::Http {
                follows_redirects,
                method,
                body,
                ..
            } = &mut probe
            {
                *follows_redirects = follows;
                *method = "POST".into();
                *body = "sent".into();
            }
            probe
        };
        let answer = |status: u16, output: &str| ProbeOutcome::HttpStatus {
            status,
            output: output.into(),
        };
        let outcome = prober.probe(&probe("/302/2", true), PATIENCE).await;
        assert_eq!(outcome, answer(200, "GET /302/0 HTTP/1.1 "));
        let outcome = prober.probe(&probe("/307/9", true), PATIENCE).await;
        assert_eq!(outcome, answer(200, "POST /307/0 HTTP/1.1 sent"));
        let outcome = prober.probe(&probe("/307/10", true), PATIENCE).await;
        assert_failed(&outcome, "stopped after 10 redirects");
        let outcome = prober.probe(&probe("/302/2", false), PATIENCE).await;
        assert_eq!(outcome, answer(302, ""));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_does_not_change_the_status() {
        let (address, _) = answer_with("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf").await;
        let outcome = ProcessProber::default()
            .probe(&get(format!("http://{address}/")), PATIENCE)
            .await;
        assert_eq!(
            outcome,
            ProbeOutcome::HttpStatus {
                status: 200,
                output: "half".into()
            }
        );
    }

    #[tokio::test]
    async fn what_can_not_be_asked_fails_with_a_reason() {
        let prober = ProcessProber::default();
        for url in [
            "https://127.0.0.1:1/",
            "ftp://127.0.0.1/",
            "no url",
            "http://127.0.0.1:1/",
        ] {
            let outcome = prober.probe(&get(url.into()), PATIENCE).await;
            assert!(
                matches!(&outcome, ProbeOutcome::Failed { output } if output.contains("GET")),
                "{url}: {outcome:?}"
            );
        }
        // It accepts and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let outcome = prober.probe(&get(url), Duration::from_millis(50)).await;
        assert_eq!(
            outcome,
            ProbeOutcome::Failed {
                output: "timed out after 50ms".into()
            }
        );
    }
}
