//! Answers that are waited for, some of them for minutes.
//!
//! Each layer that a request goes through holds what it needs, and each on its way in more than afterwards. So a handler
//! that may wait gives a response that stands for the one to come, which ends all of them but the outermost: that one
//! waits for the answer, and nothing is held meanwhile but what the answer is made of.

use std::sync::{Arc, Mutex, PoisonError};

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, FutureExt as _};

use super::{
    encode::Encoder,
    error::ApiError,
    options::{Options, Shown},
    reply::Reply,
};
use crate::{
    registry::{Query, View},
    server::{Answer, Server},
};

/// An answer to come, among the extensions of the response that stands for it.
#[derive(Clone)]
struct Later(Arc<Mutex<Option<BoxFuture<'static, Response>>>>);

/// What `reply` makes of the answer to a query, which may block.
pub(super) async fn read(
    server: Server,
    query: Query,
    options: &Options,
    reply: impl FnOnce(&Server, &Answer, Shown) -> Reply + Send + 'static,
) -> Result<Response, ApiError> {
    let (options, shown) = (options.read, options.shown());
    if options.index.is_none_or(|index| index == 0) {
        let answer = server.read(&query, options).await?;
        return Ok(reply(&server, &answer, shown).into_response());
    }
    let answer = async move {
        match server.read(&query, options).await {
            Ok(answer) => reply(&server, &answer, shown).into_response(),
            Err(error) => ApiError::from(error).into_response(),
        }
    };
    Ok(standing_for(answer.boxed()))
}

fn standing_for(answer: BoxFuture<'static, Response>) -> Response {
    let mut response = Response::default();
    let later = Later(Arc::new(Mutex::new(Some(answer))));
    response.extensions_mut().insert(later);
    response
}

/// What becomes of a response, or of the one that it stands for.
pub(super) fn mapped(response: Response, change: fn(Response) -> Response) -> Response {
    match stood_for(response) {
        Either::Left(response) => change(response),
        Either::Right(answer) => standing_for(answer.map(change).boxed()),
    }
}

/// The same with the view's own bytes, which all who ask the same are given.
pub(super) async fn encoded(
    server: Server,
    query: Query,
    options: &Options,
    encode: fn(&Encoder<'_>, &View) -> Bytes,
) -> Result<Response, ApiError> {
    let reply = move |server: &Server, answer: &Answer, shown| {
        let encoder = Encoder::new(server.config());
        let body = answer.view.bytes(|view| encode(&encoder, view));
        Reply::shown(answer, shown, body)
    };
    read(server, query, options, reply).await
}

/// The response that this one stands for, to be waited for; itself, if it stands for none.
pub(super) fn stood_for(mut response: Response) -> Either<Response, BoxFuture<'static, Response>> {
    let Some(Later(answer)) = response.extensions_mut().remove() else {
        return Either::Left(response);
    };
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    Either::Right(answer.expect("an answer is waited for once"))
}
