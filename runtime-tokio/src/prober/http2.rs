//! Probes that speak HTTP/2: a ping, and a question of gRPC's health protocol.

use bytes::{BufMut as _, Bytes, BytesMut};
use sider_core::runtime::ProbeOutcome;

use super::secure::{Secure, Stream, connect};

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Passes when a ping comes back.
pub(super) async fn ping(address: &str, tls: Option<Secure<'_>>) -> Result<ProbeOutcome, String> {
    ping_over(open(address, tls).await?, address).await
}

async fn ping_over(stream: impl Stream, address: &str) -> Result<ProbeOutcome, String> {
    let failed = |error: &dyn std::fmt::Display| format!("h2ping {address}: {error}");
    let (_sender, mut connection) = h2::client::handshake(stream)
        .await
        .map_err(|error| failed(&error))?;
    let mut pings = connection.ping_pong().ok_or_else(|| failed(&"no pings"))?;
    tokio::select! {
        ended = &mut connection => match ended {
            Ok(()) => Err(failed(&"the connection was closed")),
            Err(error) => Err(failed(&error)),
        },
        pong = pings.ping(h2::Ping::opaque()) => {
            pong.map(|_| ProbeOutcome::Connected).map_err(|error| failed(&error))
        }
    }
}

/// Asks `grpc.health.v1.Health/Check` about a service; the empty name is the server as a whole.
pub(super) async fn grpc(
    address: &str,
    service: &str,
    tls: Option<Secure<'_>>,
) -> Result<ProbeOutcome, String> {
    grpc_over(open(address, tls).await?, address, service).await
}

async fn open(address: &str, tls: Option<Secure<'_>>) -> Result<Box<dyn Stream>, String> {
    let stream = connect(address).await?;
    Ok(match tls {
        Some(tls) => Box::new(tls.over(stream, address, Some(b"h2")).await?),
        None => Box::new(stream),
    })
}

async fn grpc_over(stream: impl Stream, address: &str, service: &str) -> Result<ProbeOutcome, String> {
    let failed = |error: &dyn std::fmt::Display| format!("gRPC {address}: {error}");
    let (sender, connection) = h2::client::handshake(stream)
        .await
        .map_err(|error| failed(&error))?;
    let asked = async {
        let mut sender = sender.ready().await?;
        let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .version(http::Version::HTTP_2)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(())
            .map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(question(service), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut message = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            message.extend_from_slice(&part[..part.len().min(LONGEST - message.len().min(LONGEST))]);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let word = |name: &str| {
            let value = trailers.get(name).or_else(|| head.headers.get(name));
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        Ok::<_, h2::Error>((word("grpc-status"), word("grpc-message"), message.freeze()))
    };
    let (status, reason, message) = tokio::select! {
        answer = asked => answer.map_err(|error| failed(&error))?,
        ended = connection => return Err(failed(&ended.err().map_or_else(|| "closed".to_owned(), |error| error.to_string()))),
    };
    match (status.as_str(), serving_status(&message)) {
        ("0", Some(SERVING)) => Ok(ProbeOutcome::Connected),
        ("0", _) => Err(failed(&"it is not serving")),
        (status, _) => Err(failed(&format!("status {status} {reason}"))),
    }
}

/// No answer of the health protocol is longer.
const LONGEST: usize = 64;

/// A `HealthCheckRequest`, in gRPC's frame: not compressed, its length, field 1 as text.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_number(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    framed.freeze()
}

fn put_number(into: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        into.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

/// Field 1 of a `HealthCheckResponse`; what is left out is 0.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let message = framed.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, rest @ ..] => {
            let mut number = 0;
            for (place, byte) in rest.iter().enumerate().take(9) {
                number |= u64::from(byte & 0x7f) << (7 * place);
                if byte & 0x80 == 0 {
                    return Some(number);
                }
            }
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sider_core::runtime::ProbeTls;
    use tokio::net::TcpListener;

    use super::*;
    use crate::prober::secure::Authorities;

    /// A server of the health protocol: "web" serves, "db" does not, and nothing else is known.
    async fn serve() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                        tokio::spawn(async move {
                            let asked = request.body_mut().data().await.unwrap().unwrap();
                            let (code, message): (&str, &[u8]) = match asked.get(7..) {
                                Some(b"web") => ("0", &[0, 0, 0, 0, 2, 8, 1]),
                                Some(b"db") => ("0", &[0, 0, 0, 0, 2, 8, 2]),
                                None => ("0", &[0, 0, 0, 0, 2, 8, 1]),
                                Some(_) => ("5", &[]),
                            };
                            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                            body.send_data(Bytes::from_static(message), false).unwrap();
                            let mut trailers = http::HeaderMap::new();
                            trailers.insert("grpc-status", code.parse().unwrap());
                            trailers.insert("grpc-message", "unknown service".parse().unwrap());
                            body.send_trailers(trailers).unwrap();
                        });
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn the_health_protocol_is_asked_and_understood() {
        let address = serve().await;
        assert_eq!(grpc(&address, "web", None).await, Ok(ProbeOutcome::Connected));
        assert_eq!(grpc(&address, "", None).await, Ok(ProbeOutcome::Connected));
        assert!(
            grpc(&address, "db", None)
                .await
                .unwrap_err()
                .contains("not serving")
        );
        let unknown = grpc(&address, "else", None).await.unwrap_err();
        assert!(unknown.contains("status 5 unknown service"), "{unknown}");
        assert!(
            grpc("127.0.0.1:1", "", None)
                .await
                .unwrap_err()
                .contains("dial tcp")
        );
    }

    #[tokio::test]
    async fn a_ping_comes_back_from_who_speaks_http2() {
        let address = serve().await;
        assert_eq!(ping(&address, None).await, Ok(ProbeOutcome::Connected));
        // It does not speak TLS.
        let tls = ProbeTls {
            skip_verify: true,
            ..ProbeTls::default()
        };
        assert!(
            ping(&address, Some(Secure::new(&Authorities::new(None), &tls)))
                .await
                .unwrap_err()
                .starts_with("tls")
        );
        assert!(ping("127.0.0.1:1", None).await.is_err());
    }

    #[test]
    fn questions_and_answers_are_written_as_grpc_has_it() {
        assert_eq!(question(""), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(
            question("ab"),
            Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'])
        );
        assert_eq!(question(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 0x80]), None);
        assert_eq!(serving_status(&[1, 2]), None);
    }
}
