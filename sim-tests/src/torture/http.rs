//! One HTTP request on a connection of its own.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;

use super::evidence::Raw;

/// Sends a request and waits for its answer, no longer than `patience`.
pub(super) fn send(address: SocketAddr, request: &Request<Bytes>, patience: Duration) -> Raw {
    let deadline = Instant::now() + patience;
    let mut stream = match TcpStream::connect_timeout(&address, patience) {
        Ok(stream) => stream,
        Err(error) => return Raw::Unreachable(error.to_string()),
    };
    let mut message = format!(
        "{} {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        request.method(),
        request.uri(),
        request.body().len()
    )
    .into_bytes();
    message.extend_from_slice(request.body());
    // From here on it may arrive.
    let exchanged = stream
        .write_all(&message)
        .and_then(|()| read_all(&mut stream, deadline));
    match exchanged {
        Ok(answer) => parse(&answer).unwrap_or_else(|| Raw::Unknown("the answer broke off".into())),
        Err(error) => Raw::Unknown(error.to_string()),
    }
}

fn read_all(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Ok(answer),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
}

/// A complete answer; `None` for one that is cut off.
fn parse(answer: &[u8]) -> Option<Raw> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let body = match header("transfer-encoding") {
        Some(_) => unchunked(body)?,
        None => {
            let length: usize = header("content-length")?.parse().ok()?;
            (body.len() == length).then(|| body.to_vec())?
        }
    };
    let headers = head.split("\r\n").skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        name.starts_with("x-").then(|| (name, value.trim().to_owned()))
    });
    Some(Raw::Answer {
        status,
        headers: headers.collect(),
        body,
    })
}

fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.trim(), 16).ok()?;
        body = &body[end + 2..];
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..length)?);
        body = body.get(length + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_both_forms_and_never_half() {
        let plain = b"HTTP/1.1 200 OK\r\nX-Index: 7\r\nContent-Length: 2\r\n\r\n[]";
        let chunked = b"HTTP/1.1 200 OK\r\nx-index: 7\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n";
        for whole in [&plain[..], &chunked[..]] {
            let raw = parse(whole).expect("it is whole");
            assert_eq!(raw.index(), Some(7));
            let Raw::Answer { status, body, .. } = raw else {
                panic!("no answer")
            };
            assert_eq!((status, &body[..]), (200, &b"[]"[..]));
        }
        for length in 0..plain.len() {
            assert!(parse(&plain[..length]).is_none(), "{length}");
        }
    }
}
