//! Probes of health checks: HTTP, TCP, UDP, gRPC, pings, and programs.

mod http2;
mod secure;

use std::{
    future::Future,
    io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, header, uri::InvalidUri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioIo,
};
use rustix::process::{Pid, Signal, kill_process_group};
use sider_core::{
    limits,
    runtime::{Probe, ProbeOutcome, Prober},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinSet,
};

use self::secure::{Authorities, connect};
use crate::network::{http_client, root_cause};

/// How long the output of a program is read after it has ended: what it left running may hold the pipe open.
const OUTPUT_AFTER_EXIT: Duration = Duration::from_millis(200);

/// Runs probes from this process.
#[derive(Clone, Debug)]
pub struct ProcessProber {
    http: Client<HttpConnector, Full<Bytes>>,
    authorities: Arc<Authorities>,
}

impl Default for ProcessProber {
    fn default() -> Self {
        ProcessProber {
            // A kept connection would say little about whether the service still accepts new ones.
            http: http_client(0),
            authorities: Arc::new(Authorities::new(None)),
        }
    }
}

impl Prober for ProcessProber {
    async fn probe(&self, probe: &Probe, timeout: Duration) -> ProbeOutcome {
        match probe {
            Probe::Http {
                url,
                method,
                headers,
                body,
            } => in_time(timeout, self.http(url, method, headers, body)).await,
            Probe::Tcp { address } => in_time(timeout, tcp(address)).await,
            Probe::Udp { address } => in_time(timeout, udp(address, timeout / 2)).await,
            Probe::Grpc {
                address,
                service,
                tls,
            } => in_time(timeout, http2::grpc(address, service, self.tls(*tls))).await,
            Probe::H2ping { address, tls } => in_time(timeout, http2::ping(address, self.tls(*tls))).await,
            Probe::Command { args } => command(args, timeout).await,
        }
    }
}

impl ProcessProber {
    fn tls(&self, tls: bool) -> Option<&Authorities> {
        tls.then_some(&*self.authorities)
    }

    async fn http(
        &self,
        url: &str,
        method: &str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<ProbeOutcome, String> {
        let failed = |error: String| format!("{method} {url}: {error}");
        let mut request = http::Request::builder().uri(url).method(method);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| failed(error.to_string()))?;
        let response = match request.uri().scheme_str() {
            Some("http") => {
                let response = self.http.request(request).await;
                response.map_err(|error| failed(root_cause(&error)))?
            }
            Some("https") => self.https(request).await.map_err(failed)?,
            _ => return Err(failed("only http:// and https:// URLs can be probed".to_owned())),
        };
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
        Ok(ProbeOutcome::HttpStatus {
            status,
            output: cut(&output),
        })
    }

    /// A request over a TLS connection of its own.
    async fn https(
        &self,
        mut request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, String> {
        let authority = request.uri().authority().ok_or("it names no host")?.clone();
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443));
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|error: InvalidUri| error.to_string())?;
        let stream = connect(&address).await?;
        let stream = self.authorities.secure(stream, &address, b"http/1.1").await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| root_cause(&error))?;
        // It ends with the answer.
        tokio::spawn(connection);
        let response = sender.send_request(request).await;
        response.map_err(|error| root_cause(&error))
    }
}

async fn tcp(address: &str) -> Result<ProbeOutcome, String> {
    match tokio::net::TcpStream::connect(address).await {
        Ok(_) => Ok(ProbeOutcome::Connected),
        Err(error) => Err(format!("dial tcp {address}: {error}")),
    }
}

/// Sends a datagram of one line feed. Most services do not answer it: what counts is that nobody says that they are not
/// there.
async fn udp(address: &str, wait: Duration) -> Result<ProbeOutcome, String> {
    let failed = |error: io::Error| format!("dial udp {address}: {error}");
    let target = tokio::net::lookup_host(address).await.map_err(failed)?.next();
    let target = target.ok_or_else(|| failed(io::Error::other("the name has no address")))?;
    let own: std::net::SocketAddr = match target.is_ipv4() {
        true => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = tokio::net::UdpSocket::bind(own).await.map_err(failed)?;
    socket.connect(target).await.map_err(failed)?;
    socket.send(b"\n").await.map_err(failed)?;
    let mut buffer = [0; 512];
    match tokio::time::timeout(wait, socket.recv(&mut buffer)).await {
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok(_)) | Err(_) => Ok(ProbeOutcome::Connected),
    }
}

async fn in_time(
    timeout: Duration,
    probe: impl Future<Output = Result<ProbeOutcome, String>>,
) -> ProbeOutcome {
    match tokio::time::timeout(timeout, probe).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(output)) => ProbeOutcome::Failed {
            output: cut(output.as_bytes()),
        },
        Err(_) => timed_out(timeout),
    }
}

fn timed_out(timeout: Duration) -> ProbeOutcome {
    ProbeOutcome::Failed {
        output: format!("timed out after {timeout:?}"),
    }
}

async fn command(args: &[String], timeout: Duration) -> ProbeOutcome {
    let failed = |output: String| ProbeOutcome::Failed { output };
    let mut running = match Running::start(args) {
        Ok(running) => running,
        Err(error) => return failed(error),
    };
    let output = Arc::new(Mutex::new(Vec::new()));
    let mut reading = JoinSet::new();
    if let Some(stdout) = running.child.stdout.take() {
        reading.spawn(collect(stdout, output.clone()));
    }
    if let Some(stderr) = running.child.stderr.take() {
        reading.spawn(collect(stderr, output.clone()));
    }
    match tokio::time::timeout(timeout, running.wait()).await {
        Ok(Ok(code)) => {
            let all_read = async { while reading.join_next().await.is_some() {} };
            // When it runs out of time, what was read so far is the output.
            let _ = tokio::time::timeout(OUTPUT_AFTER_EXIT, all_read).await;
            let output = cut(&output.lock().unwrap_or_else(PoisonError::into_inner));
            ProbeOutcome::Exited { code, output }
        }
        Ok(Err(error)) => failed(format!("{}: {error}", args[0])),
        Err(_) => timed_out(timeout),
    }
}

/// A program under way. Dropping it ends it with all that it has started.
struct Running {
    child: Child,
    /// Its process group, while it lives.
    group: Option<Pid>,
}

impl Running {
    fn start(args: &[String]) -> Result<Running, String> {
        let (program, rest) = args.split_first().ok_or("no program to run was given")?;
        let child = Command::new(program)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Running {
            child,
            group: id.and_then(Pid::from_raw),
        })
    }

    /// Waits for its end; gives its exit code, or -1 when a signal ended it.
    async fn wait(&mut self) -> io::Result<i32> {
        let status = self.child.wait().await?;
        // Its id may belong to another process from now on.
        self.group = None;
        Ok(status.code().unwrap_or(-1))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It fails when the group has ended by itself, which is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, so that the program is never held up, and keeps the first of it.
async fn collect(mut from: impl AsyncRead + Unpin, into: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; limits::CHECK_OUTPUT_BYTES_MAX];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
        // One byte more than is kept, so that a character cut in two is recognised as such.
        let room = (limits::CHECK_OUTPUT_BYTES_MAX + 1).saturating_sub(into.len());
        into.extend_from_slice(&buffer[..length.min(room)]);
    }
}

/// The text of `output`, cut to what a check keeps.
fn cut(output: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(output).into_owned();
    text.truncate(text.floor_char_boundary(limits::CHECK_OUTPUT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn probe_command(script: &str, timeout: Duration) -> ProbeOutcome {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        ProcessProber::default()
            .probe(&Probe::Command { args }, timeout)
            .await
    }

    #[tokio::test]
    async fn a_programs_exit_code_and_output_are_reported() {
        assert_eq!(
            probe_command("echo fine; exit 0", PATIENCE).await,
            ProbeOutcome::Exited {
                code: 0,
                output: "fine\n".into()
            }
        );
        assert_eq!(
            probe_command("echo so so >&2; exit 3", PATIENCE).await,
            ProbeOutcome::Exited {
                code: 3,
                output: "so so\n".into()
            }
        );
        assert_eq!(
            probe_command("kill -9 $$", PATIENCE).await,
            ProbeOutcome::Exited {
                code: -1,
                output: String::new()
            }
        );
        let missing = Probe::Command {
            args: vec!["/no/such/program".into()],
        };
        let outcome = ProcessProber::default().probe(&missing, PATIENCE).await;
        assert!(matches!(&outcome, ProbeOutcome::Failed { output } if output.contains("/no/such/program")));
        let nothing = ProcessProber::default()
            .probe(&Probe::Command { args: vec![] }, PATIENCE)
            .await;
        assert!(matches!(nothing, ProbeOutcome::Failed { .. }));
    }

    #[tokio::test]
    async fn long_output_is_cut_and_does_not_hold_the_program_up() {
        let outcome = probe_command("head -c 1000000 /dev/zero | tr '\\0' 'x'; exit 1", PATIENCE).await;
        let ProbeOutcome::Exited { code: 1, output } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(output, "x".repeat(limits::CHECK_OUTPUT_BYTES_MAX));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        // The child would create the file after its parent has been given up.
        let script = format!("(sleep 2; touch {}) & sleep 60", alive.display());
        let outcome = probe_command(&script, Duration::from_millis(100)).await;
        assert_eq!(
            outcome,
            ProbeOutcome::Failed {
                output: "timed out after 100ms".into()
            }
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!alive.exists(), "the child went on");
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_does_not_hold_up_its_result() {
        let outcome = probe_command("echo done; sleep 20 & exit 0", Duration::from_secs(10)).await;
        assert_eq!(
            outcome,
            ProbeOutcome::Exited {
                code: 0,
                output: "done\n".into()
            }
        );
    }

    #[tokio::test]
    async fn a_port_is_open_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probe = Probe::Tcp { address };
        let prober = ProcessProber::default();
        assert_eq!(prober.probe(&probe, PATIENCE).await, ProbeOutcome::Connected);
        drop(listener);
        assert!(matches!(
            prober.probe(&probe, PATIENCE).await,
            ProbeOutcome::Failed { .. }
        ));
    }

    #[tokio::test]
    async fn a_datagram_is_refused_or_not() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let probe = Probe::Udp { address };
        let prober = ProcessProber::default();
        let wait = Duration::from_secs(1);
        assert_eq!(prober.probe(&probe, wait).await, ProbeOutcome::Connected);
        drop(socket);
        let outcome = prober.probe(&probe, wait).await;
        assert!(
            matches!(&outcome, ProbeOutcome::Failed { output } if output.starts_with("dial udp")),
            "{outcome:?}"
        );
    }

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
    }

    #[tokio::test]
    async fn a_server_is_asked_by_tls_if_it_is_trusted() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
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
                let length = stream.read(&mut asked).await.unwrap();
                let asked = String::from_utf8_lossy(&asked[..length]).to_ascii_lowercase();
                let answer = match asked.starts_with("get /health?a=1 http/1.1")
                    && asked.contains("host: localhost:")
                {
                    true => "HTTP/1.1 204 No Content\r\n\r\n",
                    false => "HTTP/1.1 400 Bad Request\r\n\r\n",
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let url = format!("https://localhost:{port}/health?a=1");
        let trusting = ProcessProber {
            authorities: Arc::new(Authorities::new(Some(file))),
            ..ProcessProber::default()
        };
        let outcome = trusting.probe(&get(url.clone()), PATIENCE).await;
        let answered = ProbeOutcome::HttpStatus {
            status: 204,
            output: String::new(),
        };
        assert_eq!(outcome, answered);
        // Another name than that of the certificate, and a host that trusts others.
        let outcome = trusting
            .probe(&get(format!("https://127.0.0.1:{port}/")), PATIENCE)
            .await;
        assert!(
            matches!(&outcome, ProbeOutcome::Failed { output } if output.contains("certificate")),
            "{outcome:?}"
        );
        let outcome = ProcessProber::default().probe(&get(url), PATIENCE).await;
        assert!(
            matches!(&outcome, ProbeOutcome::Failed { output } if output.contains("tls")),
            "{outcome:?}"
        );
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

    #[test]
    fn output_is_cut_between_characters() {
        let text = "ä".repeat(limits::CHECK_OUTPUT_BYTES_MAX);
        let cut = cut(text.as_bytes());
        assert_eq!(cut.len(), limits::CHECK_OUTPUT_BYTES_MAX);
        assert!(cut.chars().all(|character| character == 'ä'));
    }
}
