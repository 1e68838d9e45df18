//! How a server is asked: plain HTTP, the first address that answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::CliError;

/// How long a plain request may take. Blocking queries add their wait.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the answer to a request may take that carries a snapshot.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(600);
/// A server that sends nothing of a long answer for so long has gone; of a stream it says four times as often that nothing
/// differs.
const SILENCE_MAX: Duration = sider_core::limits::STREAM_KEEP_ALIVE.saturating_mul(4);

/// A client of one or more servers of a cluster.
#[derive(Clone, Debug)]
pub struct Client {
    addresses: Vec<String>,
    http: HyperClient<HttpConnector, Full<Bytes>>,
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    /// Who gave it.
    pub address: String,
    /// The `X-Index` header; 0 where there is none.
    pub index: u64,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&self) -> Result<Value, CliError> {
        serde_json::from_slice(&self.body).map_err(|error| CliError::Unexpected {
            address: self.address.clone(),
            reason: error.to_string(),
        })
    }
}

impl Client {
    /// A client that tries `addresses` (`host:port`, or `:port` on this host) in order.
    pub fn new(addresses: &[String]) -> Self {
        let addresses = addresses.iter().map(|address| with_host(address)).collect();
        Client {
            addresses,
            http: HyperClient::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The first of `addresses`, in full.
    pub fn first_address(addresses: &[String]) -> String {
        with_host(addresses.first().map_or("", String::as_str))
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No server answers, or it refuses.
    pub async fn get(&self, path: &str) -> Result<Answer, CliError> {
        self.send(Method::GET, path, None, Duration::ZERO).await
    }

    /// `GET path` for a blocking query that may take `wait`.
    ///
    /// # Errors
    /// No server answers, or it refuses.
    pub async fn get_blocking(&self, path: &str, wait: Duration) -> Result<Answer, CliError> {
        self.send(Method::GET, path, None, wait + wait / 16).await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// No server answers, or it refuses.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer, CliError> {
        self.send(Method::PUT, path, Some(body.to_string()), Duration::ZERO)
            .await
    }

    /// `GET path` of something large, which `take` gets piece by piece.
    ///
    /// # Errors
    /// No server answers, it refuses, it breaks off, or `take` fails.
    pub async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&Bytes) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let (address, response) = self
            .request(Method::GET, path, Bytes::new(), TRANSFER_TIMEOUT)
            .await?;
        if response.status() != StatusCode::OK {
            return answer(&address, response).await.map(|_| ());
        }
        let mut body = response.into_body();
        loop {
            let broke_off = |reason: String| CliError::Unexpected {
                address: address.clone(),
                reason: format!("it broke off: {reason}"),
            };
            let Ok(frame) = tokio::time::timeout(SILENCE_MAX, body.frame()).await else {
                return Err(broke_off(format!("nothing came for {} s", SILENCE_MAX.as_secs())));
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            let frame = frame.map_err(|error| broke_off(error.to_string()))?;
            if let Some(piece) = frame.data_ref() {
                take(piece)?;
            }
        }
    }

    /// `PUT path` with something large.
    ///
    /// # Errors
    /// No server answers, or it refuses.
    pub async fn upload(&self, path: &str, body: Bytes) -> Result<Answer, CliError> {
        let (address, response) = self.request(Method::PUT, path, body, TRANSFER_TIMEOUT).await?;
        answer(&address, response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        extra: Duration,
    ) -> Result<Answer, CliError> {
        let body = Bytes::from(body.unwrap_or_default());
        let (address, response) = self.request(method, path, body, REQUEST_TIMEOUT + extra).await?;
        answer(&address, response).await
    }

    /// A connection refused means that nothing was done, so the next address is tried; any later failure is final, for a
    /// write must not be sent twice. Gives the head of an answer, and whose it is.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(String, http::Response<hyper::body::Incoming>), CliError> {
        let mut reason = String::new();
        for address in &self.addresses {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = format!("http://{address}{path}")
                .parse()
                .map_err(|error| CliError::Other(format!("bad address {address:?}: {error}")))?;
            request.headers_mut().insert(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            let response = match tokio::time::timeout(timeout, self.http.request(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) if error.is_connect() => {
                    reason = "connection refused".into();
                    continue;
                }
                Ok(Err(error)) => {
                    return Err(CliError::Unreachable {
                        addresses: address.clone(),
                        reason: error.to_string(),
                    });
                }
                Err(_) => {
                    return Err(CliError::Unreachable {
                        addresses: address.clone(),
                        reason: "no answer in time".into(),
                    });
                }
            };
            return Ok((address.clone(), response));
        }
        Err(CliError::Unreachable {
            addresses: self.addresses.join(", "),
            reason,
        })
    }
}

async fn answer(address: &str, response: http::Response<hyper::body::Incoming>) -> Result<Answer, CliError> {
    let status = response.status();
    let index = response
        .headers()
        .get("x-index")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| CliError::Unexpected {
            address: address.to_owned(),
            reason: error.to_string(),
        })?
        .to_bytes();
    if status != StatusCode::OK {
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(CliError::Refused {
            address: address.to_owned(),
            status: status.as_u16(),
            message,
        });
    }
    Ok(Answer {
        address: address.to_owned(),
        index,
        body,
    })
}

/// `:8500` means this host.
pub(crate) fn with_host(address: &str) -> String {
    let address = address.trim().trim_start_matches("http://").trim_end_matches('/');
    if address.starts_with(':') {
        format!("127.0.0.1{address}")
    } else {
        address.to_owned()
    }
}

/// Encodes a path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_this_host() {
        assert_eq!(with_host(":8500"), "127.0.0.1:8500");
        assert_eq!(with_host("http://db:1/"), "db:1");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }
}
