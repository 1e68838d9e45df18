//! The answering side: every call is a task of its own.

use std::{io, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use sider_core::{limits, runtime::PeerHandler};
use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::frame::{self, Frame, Kind};
use crate::address::configure;

const BUFFER: usize = 64 * 1024;

/// Accepts and serves connections for ever; dropping the future ends every call under way.
pub(super) async fn serve(listener: Arc<TcpListener>, handler: PeerHandler) {
    let permits = Arc::new(Semaphore::new(limits::PEER_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("this semaphore is never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: the ones in use must be given back first.
                    tracing::warn!(%error, "can't accept a connection from a peer");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let handler = handler.clone();
        connections.spawn(async move {
            let peer = stream
                .peer_addr()
                .map(|peer| peer.to_string())
                .unwrap_or_default();
            if let Err(error) = serve_connection(stream, handler).await {
                tracing::debug!(%error, %peer, "the connection from a peer ended");
            }
            drop(permit);
        });
    }
}

async fn serve_connection(mut stream: TcpStream, handler: PeerHandler) -> io::Result<()> {
    configure(&stream)?;
    tokio::time::timeout(limits::CONNECT_TIMEOUT, frame::greet(&mut stream)).await??;
    let (reader, writer) = stream.into_split();
    let (answers, outgoing) = mpsc::channel(limits::PEER_IN_FLIGHT_MAX);
    let mut calls = JoinSet::new();
    let ended = tokio::select! {
        ended = read_calls(reader, &mut calls, handler, answers) => ended,
        ended = write_answers(writer, outgoing) => ended,
    };
    // What was begun is finished: the caller has gone, and its call may be half done.
    while calls.join_next().await.is_some() {}
    ended
}

async fn read_calls(
    reader: OwnedReadHalf,
    calls: &mut JoinSet<()>,
    handler: PeerHandler,
    answers: mpsc::Sender<Frame>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let permits = Arc::new(Semaphore::new(limits::PEER_IN_FLIGHT_MAX));
    loop {
        // At the limit nothing more is read, which holds up the caller.
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("this semaphore is never closed");
        let Some(call) = frame::read(&mut reader).await? else {
            return Ok(());
        };
        if call.kind != Kind::Request {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it sent an answer instead of a call",
            ));
        }
        while calls.try_join_next().is_some() {}
        let (handler, answers) = (handler.clone(), answers.clone());
        calls.spawn(async move {
            // The call itself runs inside, so that a panic while it is being created is contained as well.
            let answer = AssertUnwindSafe(async { handler(call.payload).await })
                .catch_unwind()
                .await;
            let answer = match answer {
                Ok(payload) if frame::fits(&payload) => (Kind::Response, payload),
                Ok(payload) => {
                    tracing::error!(
                        bytes = payload.len(),
                        "an answer to a peer is too long to be sent"
                    );
                    (Kind::Lost, bytes::Bytes::new())
                }
                // The panic hook has logged it.
                Err(_) => (Kind::Lost, bytes::Bytes::new()),
            };
            let (kind, payload) = answer;
            let frame = Frame {
                id: call.id,
                kind,
                payload,
            };
            // The connection may have ended meanwhile.
            drop(answers.send(frame).await);
            drop(permit);
        });
    }
}

async fn write_answers(writer: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(answer) = next {
            frame::write(&mut writer, &answer).await?;
            next = outgoing.try_recv().ok();
        }
        writer.flush().await?;
    }
    Ok(())
}
