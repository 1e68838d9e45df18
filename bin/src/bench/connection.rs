//! One HTTP/1.1 connection that is driven a request at a time.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cli::CliError;

/// A connection to one server.
pub(super) struct Connection {
    address: String,
    sender: SendRequest<Full<Bytes>>,
}

/// What came back.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) index: u64,
    pub(super) body: Bytes,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(address: &str) -> Result<Self, CliError> {
        let failed = |reason: String| CliError::Unreachable {
            addresses: address.to_owned(),
            reason,
        };
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| match error.raw_os_error() {
                // EMFILE: the remedy is the shell's, not ours.
                Some(24) => failed(format!("{error}: raise `ulimit -n`")),
                _ => failed(error.to_string()),
            })?;
        stream
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let (sender, driver) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        tokio::spawn(driver);
        Ok(Connection {
            address: address.to_owned(),
            sender,
        })
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn send(&mut self, method: &str, path: &str, body: String) -> Result<Response, String> {
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.address)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let header = response
            .headers()
            .get("x-consul-index")
            .and_then(|value| value.to_str().ok());
        let index = header.and_then(|index| index.parse().ok()).unwrap_or(0);
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok(Response { status, index, body })
    }

    /// Sends a request that must be answered with 200, and gives its body.
    pub(super) async fn expect(&mut self, method: &str, path: &str, body: String) -> Result<Bytes, CliError> {
        match self.send(method, path, body).await {
            Ok(response) if response.status == 200 => Ok(response.body),
            Ok(response) => Err(CliError::Refused {
                address: self.address.clone(),
                status: response.status,
                message: String::from_utf8_lossy(&response.body).trim().to_owned(),
            }),
            Err(reason) => Err(CliError::Unreachable {
                addresses: self.address.clone(),
                reason,
            }),
        }
    }
}
