//! What travels on a connection between two servers.
//!
//! Both sides first send a hello: eight fixed bytes and a version. Then frames go both ways: four bytes of length
//! (of all that follows), eight bytes of request id, one byte of kind, payload. Numbers are big-endian.

use std::io;

use bytes::Bytes;
use sider_core::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 8] = *b"SIDERRPC";
/// Version of this protocol. Servers of different versions refuse each other and say so.
const VERSION: u16 = 1;
/// Bytes of id and kind, counted in a frame's length.
const HEAD: usize = 9;
/// Memory set aside for a frame before its bytes arrive: a length alone must not cost 16 MiB.
const UPFRONT: usize = 64 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call.
    Request = 1,
    /// The answer to the call of the same id.
    Response = 2,
    /// There will be no answer to the call of the same id, which may have been carried out.
    Lost = 3,
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
}

/// Whether a payload fits into a frame.
pub(super) fn fits(payload: &Bytes) -> bool {
    payload.len() + HEAD <= limits::PEER_FRAME_BYTES_MAX
}

/// Writes a frame, unflushed.
pub(super) async fn write(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let length = u32::try_from(frame.payload.len() + HEAD).map_err(io::Error::other)?;
    let mut head = [0; 4 + HEAD];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..12].copy_from_slice(&frame.id.to_be_bytes());
    head[12] = frame.kind as u8;
    writer.write_all(&head).await?;
    writer.write_all(&frame.payload).await
}

/// Reads a frame; `None` when the other side has closed the connection between two frames.
///
/// # Errors
/// The connection broke, or what came is no frame (`InvalidData`).
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 4 + HEAD];
    if reader.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..]).await?;
    let length = u32::from_be_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    let id = u64::from_be_bytes(head[4..12].try_into().expect("8 bytes"));
    let kind = match head[12] {
        1 => Kind::Request,
        2 => Kind::Response,
        3 => Kind::Lost,
        other => return Err(invalid(format!("a frame of the unknown kind {other}"))),
    };
    if !(HEAD..=limits::PEER_FRAME_BYTES_MAX).contains(&length) {
        return Err(invalid(format!("a frame of {length} bytes")));
    }
    let length = length - HEAD;
    let mut payload = Vec::with_capacity(length.min(UPFRONT));
    reader.take(length as u64).read_to_end(&mut payload).await?;
    if payload.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame {
        id,
        kind,
        payload: payload.into(),
    }))
}

/// Greets the other side and checks its greeting.
///
/// # Errors
/// The connection broke, or the other side is no Sider server of this protocol's version (`InvalidData`).
pub(super) async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut hello = [0; 10];
    hello[..8].copy_from_slice(&MAGIC);
    hello[8..].copy_from_slice(&VERSION.to_be_bytes());
    stream.write_all(&hello).await?;
    stream.flush().await?;
    stream.read_exact(&mut hello).await?;
    if hello[..8] != MAGIC {
        return Err(invalid("it is not the Raft port of a Sider server".to_owned()));
    }
    let version = u16::from_be_bytes([hello[8], hello[9]]);
    if version != VERSION {
        return Err(invalid(format!(
            "it speaks version {version} of the servers' protocol, and this server version {VERSION}"
        )));
    }
    Ok(())
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_as_they_were() {
        let frames = [
            (1, Kind::Request, Bytes::from_static(b"hello")),
            (u64::MAX, Kind::Response, Bytes::new()),
            (7, Kind::Lost, Bytes::from(vec![5; 200_000])),
        ];
        let mut wire = Vec::new();
        for (id, kind, payload) in frames.clone() {
            write(&mut wire, &Frame { id, kind, payload }).await.unwrap();
        }
        let mut reader = &wire[..];
        for (id, kind, payload) in frames {
            assert_eq!(
                read(&mut reader).await.unwrap(),
                Some(Frame { id, kind, payload })
            );
        }
        assert_eq!(read(&mut reader).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let head = |length: u32, kind: u8| {
            let mut head = length.to_be_bytes().to_vec();
            head.extend([0, 0, 0, 0, 0, 0, 0, 1, kind]);
            head
        };
        let too_long = u32::try_from(limits::PEER_FRAME_BYTES_MAX + 1).unwrap();
        for bad in [
            head(9, 0),
            head(9, 4),
            head(8, 1),
            head(too_long, 1),
            head(u32::MAX, 1),
        ] {
            let error = read(&mut &bad[..]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        let cut = head(100, 1);
        for length in [1, 5, cut.len()] {
            let error = read(&mut &cut[..length]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        }
    }

    #[tokio::test]
    async fn strangers_are_recognised() {
        let (mut one, mut other) = tokio::io::duplex(64);
        let (first, second) = tokio::join!(greet(&mut one), greet(&mut other));
        first.unwrap();
        second.unwrap();

        for (greeting, complaint) in [
            (&b"GET / HTTP/1.1\r\n"[..], "not the Raft port"),
            (b"SIDERRPC\x00\x09", "version 9"),
        ] {
            let (mut one, mut stranger) = tokio::io::duplex(64);
            stranger.write_all(greeting).await.unwrap();
            let error = greet(&mut one).await.unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
