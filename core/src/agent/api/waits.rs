//! Blocking queries that wait for the same thing wait once: the first is sent on to a server, and the others wait for the end
//! of that one here. Then each asks by itself, and is answered at once where there is news; so the answer of each is as fresh
//! as if it had waited at a server, and a server holds one query for all of them.
//!
//! Nobody hangs on one that is lost: who comes long after it asks first whether there is news already, and whoever waits behind it
//! goes on without it when the agent has turned to another server, or when it should have ended.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderValue, Response, Uri, header};
use tokio::sync::Notify;

use super::forward::{Wanted, parameter, wait};
use crate::{
    agent::{Shared, cache::index_of, servers::Forwarded},
    limits::{AGENT_WAIT_DOUBT, AGENT_WAIT_SLACK, WAIT_SPREAD_DIVISOR},
    runtime::{Instant, Runtime},
};

/// What the paths begin with of which queries are shared.
const SHARED: [&str; 4] = ["/v1/catalog/", "/v1/health/", "/v1/kv/", "/v1/session/"];
/// The parameters that say how long to wait, and for what.
const WAIT: &str = "wait";
const INDEX: &str = "index";

/// The queries that wait at a server, by what they wait for.
#[derive(Debug, Default)]
pub(in crate::agent) struct Waits(Mutex<BTreeMap<String, Arc<Parked>>>);

/// A query that waits at a server.
#[derive(Debug)]
struct Parked {
    /// The server that the agent turned to then, by its place in the list.
    server: usize,
    /// When it was sent.
    since: Instant,
    /// When it has ended, unless it is lost.
    due: Instant,
    /// Told when it ends.
    ended: Notify,
    /// Whether it ended because there is news, or none can be had: whoever else waited asks by itself.
    decided: AtomicBool,
}

/// Sends on a query that waits, for as long as this lives.
struct First<'a> {
    waits: &'a Waits,
    question: String,
    parked: Arc<Parked>,
}

/// How a query waits.
enum Place<'a> {
    First(First<'a>),
    Behind(Arc<Parked>),
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Parked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind the one that waits already, if anybody should wait behind that, else the first.
    fn enter(&self, question: &str, server: usize, (now, due): (Instant, Instant)) -> Place<'_> {
        let mut waits = self.lock();
        if let Some(parked) = waits.get(question)
            && parked.server == server
            && now < parked.due
        {
            return Place::Behind(parked.clone());
        }
        let parked = Arc::new(Parked {
            server,
            since: now,
            due,
            ended: Notify::new(),
            decided: AtomicBool::new(false),
        });
        waits.insert(question.to_owned(), parked.clone());
        Place::First(First {
            waits: self,
            question: question.to_owned(),
            parked,
        })
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        let mut waits = self.waits.lock();
        if waits
            .get(&self.question)
            .is_some_and(|there| Arc::ptr_eq(there, &self.parked))
        {
            waits.remove(&self.question);
        }
        drop(waits);
        self.parked.ended.notify_waiters();
    }
}

/// The index that a query waits for news of, if queries like it are shared.
pub(super) fn index(wanted: &Wanted) -> Option<u64> {
    let path = wanted.uri.path();
    let is_shared =
        wanted.method == http::Method::GET && SHARED.iter().any(|prefix| path.starts_with(prefix));
    let index = parameter(&wanted.uri, INDEX).filter(|_| is_shared)?;
    index.parse().ok().filter(|index| *index > 0)
}

/// Sends on a query that waits for news of `index`, or has it wait behind one like it.
///
/// # Errors
/// No server could answer.
pub(super) async fn forward<R: Runtime>(
    shared: &Shared<R>,
    wanted: &Wanted,
    index: u64,
) -> Result<Response<Bytes>, Forwarded> {
    let question = question(wanted);
    // Servers spread the ends of those that wait there.
    let deadline = R::now() + wait(&wanted.uri);
    let mut asked = wanted.clone();
    loop {
        let now = R::now();
        let left = deadline.saturating_since(now);
        let due = now + left + left / WAIT_SPREAD_DIVISOR + AGENT_WAIT_SLACK;
        let parked = match shared
            .waits
            .enter(&question, shared.servers.current(), (now, due))
        {
            Place::First(first) => {
                let answer = shared.servers.forward(&asked, asked.patience()).await;
                // That it was there for as long as it wanted, or its client has left, says nothing to the others.
                let is_over = answer
                    .as_ref()
                    .is_ok_and(|answer| index_of(answer) == Some(index));
                first.parked.decided.store(!is_over, Ordering::SeqCst);
                return answer;
            }
            Place::Behind(parked) => parked,
        };
        let over = async {
            let ended = pin!(ended(shared, &question, &parked));
            select(ended, pin!(shared.servers.moved_from(parked.server))).await;
        };
        let until = deadline.min(parked.due).saturating_since(now);
        let doubtful = now >= parked.since + AGENT_WAIT_DOUBT;
        let look = async {
            match doubtful {
                true => news(shared, wanted, index).await,
                false => None,
            }
        };
        if let Some(Some(news)) = R::timeout(until, first_of(look, over)).await {
            return news;
        }
        let left = deadline.saturating_since(R::now());
        // Whose time is over is answered with what is there, at once.
        asked.uri = changed(&wanted.uri, Some(left).filter(|left| !left.is_zero()));
        if left.is_zero() || parked.decided.load(Ordering::SeqCst) {
            return shared.servers.forward(&asked, asked.patience()).await;
        }
    }
}

/// What a server answers at once, if that is not what the client waits to see changed.
async fn news<R: Runtime>(
    shared: &Shared<R>,
    wanted: &Wanted,
    index: u64,
) -> Option<Result<Response<Bytes>, Forwarded>> {
    let look = Wanted {
        uri: changed(&wanted.uri, None),
        ..wanted.clone()
    };
    let answer = shared.servers.forward(&look, look.patience()).await;
    let is_known = |answer: &Response<Bytes>| index_of(answer).is_some_and(|now| now <= index);
    Some(answer).filter(|answer| !answer.as_ref().is_ok_and(is_known))
}

/// What is found, if anything is, before something else is over.
async fn first_of<T>(found: impl Future<Output = Option<T>>, over: impl Future<Output = ()>) -> Option<T> {
    match select(pin!(found), pin!(over)).await {
        Either::Left((None, over)) => {
            over.await;
            None
        }
        Either::Left((found, _)) => found,
        Either::Right(_) => None,
    }
}

/// Ends when a query does not wait any more.
async fn ended<R: Runtime>(shared: &Shared<R>, question: &str, parked: &Arc<Parked>) {
    let mut told = pin!(parked.ended.notified());
    told.as_mut().enable();
    let waits = shared
        .waits
        .lock()
        .get(question)
        .is_some_and(|there| Arc::ptr_eq(there, parked));
    if waits {
        told.await;
    }
}

/// What is asked, how fresh and by whom; not for how long to wait.
fn question(wanted: &Wanted) -> String {
    let mut question = rest_of(&wanted.uri, |key| key != WAIT);
    for name in [
        "x-consul-token",
        header::AUTHORIZATION.as_str(),
        "x-consul-namespace",
    ] {
        let value = wanted.headers.get(name).map(HeaderValue::as_bytes);
        question.push(' ');
        question.push_str(&String::from_utf8_lossy(value.unwrap_or_default()));
    }
    question
}

/// The same query with this time left to wait, or without a wait.
fn changed(uri: &Uri, left: Option<Duration>) -> Uri {
    let changed = match left {
        None => rest_of(uri, |key| key != WAIT && key != INDEX),
        Some(left) => {
            let rest = rest_of(uri, |key| key != WAIT);
            // 0 would be the longest.
            format!("{rest}&{WAIT}={}us", left.as_micros().max(1))
        }
    };
    changed.parse().unwrap_or_else(|_| uri.clone())
}

/// The path with the parameters that are to stay.
pub(super) fn rest_of(uri: &Uri, stays: impl Fn(&str) -> bool) -> String {
    let pairs = uri.query().unwrap_or_default().split('&');
    let pairs = pairs.filter(|pair| stays(pair.split_once('=').map_or(*pair, |(key, _)| key)));
    format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&"))
}
