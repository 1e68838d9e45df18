//! Answers of servers that are kept for `?cached`, each followed by one blocking query of the agent's own, whoever asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::response::Response;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use tokio::sync::Notify;

use super::{
    Shared,
    api::forward::{Wanted, into_response, no_answer},
};
use crate::{
    api::http::error::ApiError,
    limits::{
        AGENT_BACKOFF_MAX, AGENT_BACKOFF_MIN, AGENT_CACHE_ENTRIES_MAX, AGENT_CACHE_IDLE, AGENT_CACHE_WAIT,
        AGENT_FORWARD_SLACK, AGENT_FORWARD_TIMEOUT,
    },
    probing::schedule::Backoff,
    runtime::{Instant, Runtime},
    server::ReadOptions,
};

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const CACHE: HeaderName = HeaderName::from_static("x-cache");

/// What the paths begin with whose answers are kept.
const CACHEABLE: [&str; 2] = ["/v1/catalog/", "/v1/health/"];
/// Parameters that say how to wait and not what is asked.
const NOT_PART_OF_THE_QUESTION: [&str; 6] = ["cached", "index", "wait", "pretty", "stale", "max_stale"];

/// Whether answers at this path are kept.
pub(super) fn is_cacheable(path: &str) -> bool {
    CACHEABLE.iter().any(|prefix| path.starts_with(prefix))
}

/// Answers by their questions.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
}

impl Cache {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Entry {
    kept: Mutex<Kept>,
    /// Told of each answer of the servers.
    news: Notify,
}

#[derive(Clone, Debug)]
struct Kept {
    answer: http::Response<Bytes>,
    index: u64,
    /// When a server last said that it is so.
    confirmed: Instant,
    /// When a client last asked for it.
    used: Instant,
    /// Whether a task follows it.
    followed: bool,
}

impl Entry {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a server said to whoever asked it for news of the index `asked`, and tells everyone who waits. A client
    /// may have fetched something newer meanwhile, which stays; but servers that were set up anew begin with a lower index.
    fn take_news(&self, answer: http::Response<Bytes>, index: u64, asked: u64, now: Instant) {
        {
            let mut kept = self.kept();
            if index < kept.index && kept.index != asked {
                return;
            }
            (kept.answer, kept.index, kept.confirmed) = (answer, index, now);
        }
        self.news.notify_waiters();
    }
}

/// Answers a request with `?cached`: with what is kept if it is fresh enough and newer than what the client has, else when
/// it is.
pub(super) async fn answer<R: Runtime>(
    shared: &Arc<Shared<R>>,
    wanted: &Wanted,
    read: ReadOptions,
) -> Result<Response, ApiError> {
    let question = question(wanted);
    let known = shared.cache.entries().get(&question).cloned();
    let has = read.index.unwrap_or(0);
    if let Some(entry) = known
        && may_be_used::<R>(wanted, &entry)
    {
        return Ok(wait_for_news::<R>(&entry, has, read.wait).await);
    }
    let fetched = fetch(shared, wanted, &question, 0, AGENT_FORWARD_TIMEOUT).await?;
    let Some(index) = index_of(&fetched).filter(|_| fetched.status() == StatusCode::OK) else {
        return Ok(into_response(fetched));
    };
    let entry = keep(shared, wanted, question, fetched.clone(), index);
    if index > has {
        return Ok(shown(fetched, "MISS", Duration::ZERO));
    }
    match entry {
        Some(entry) => Ok(wait_for_news::<R>(&entry, has, read.wait).await),
        // There is no room for it, so the server waits.
        None => {
            let limit = read.wait * 17 / 16 + AGENT_FORWARD_SLACK;
            let answer = shared.servers.forward(wanted, limit).await.map_err(no_answer)?;
            Ok(shown(answer, "MISS", Duration::ZERO))
        }
    }
}

/// Whether what is kept is as fresh as `Cache-Control` asks for: `max-age`, and `no-cache` or `must-revalidate` for
/// now.
fn may_be_used<R: Runtime>(wanted: &Wanted, entry: &Entry) -> bool {
    let now = R::now();
    let mut kept = entry.kept();
    kept.used = now;
    let age = now.saturating_since(kept.confirmed);
    let asked = wanted
        .headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok());
    let fresh = asked.unwrap_or_default().split(',').map(str::trim).all(|word| {
        let seconds = word
            .strip_prefix("max-age=")
            .and_then(|seconds| seconds.parse().ok());
        !["no-cache", "must-revalidate"].contains(&word)
            && seconds.is_none_or(|seconds| age <= Duration::from_secs(seconds))
    });
    kept.followed && fresh
}

/// Ends with what is kept when it is newer than what the client has, or after its wait.
async fn wait_for_news<R: Runtime>(entry: &Entry, has: u64, wait: Duration) -> Response {
    let deadline = R::now() + wait;
    loop {
        let news = std::pin::pin!(entry.news.notified());
        {
            let kept = entry.kept();
            let now = R::now();
            if kept.index > has || now >= deadline || has == 0 {
                return shown(kept.answer.clone(), "HIT", now.saturating_since(kept.confirmed));
            }
        }
        let sleep = std::pin::pin!(R::sleep_until(deadline));
        if let Either::Right(_) = select(news, sleep).await {
            let kept = entry.kept();
            return shown(
                kept.answer.clone(),
                "HIT",
                R::now().saturating_since(kept.confirmed),
            );
        }
    }
}

fn shown(answer: http::Response<Bytes>, cache: &'static str, age: Duration) -> Response {
    let mut response = into_response(answer);
    let headers = response.headers_mut();
    headers.insert(CACHE, HeaderValue::from_static(cache));
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    response
}

/// What is asked, without how to wait for it, and by whom.
fn question(wanted: &Wanted) -> String {
    let pairs = wanted.uri.query().unwrap_or_default().split('&');
    let mut pairs: Vec<&str> = pairs
        .filter(|pair| !pair.is_empty())
        .filter(|pair| {
            let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
            !NOT_PART_OF_THE_QUESTION.contains(&key)
        })
        .collect();
    pairs.sort_unstable();
    let mut question = format!("{}?{}", wanted.uri.path(), pairs.join("&"));
    for name in ["x-consul-token", "authorization", "x-consul-namespace"] {
        let value = wanted
            .headers
            .get(name)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        question.push(' ');
        question.push_str(&String::from_utf8_lossy(value));
    }
    question
}

/// The index of an answer.
pub(super) fn index_of(answer: &http::Response<Bytes>) -> Option<u64> {
    answer.headers().get(INDEX)?.to_str().ok()?.parse().ok()
}

/// Asks a server; with an index, waits there for something newer.
async fn fetch<R: Runtime>(
    shared: &Shared<R>,
    wanted: &Wanted,
    question: &str,
    index: u64,
    limit: Duration,
) -> Result<http::Response<Bytes>, ApiError> {
    let path = question.split(' ').next().unwrap_or_default();
    let uri = match index {
        0 => path.to_owned(),
        index => format!("{path}&index={index}&wait={}s", AGENT_CACHE_WAIT.as_secs()),
    };
    let uri: Uri = uri
        .parse()
        .map_err(|_| ApiError::bad_request("Invalid query: expected a URL that can be asked"))?;
    let request = Wanted {
        uri,
        ..wanted.clone()
    };
    shared.servers.forward(&request, limit).await.map_err(no_answer)
}

/// Keeps an answer and follows it, if there is room.
fn keep<R: Runtime>(
    shared: &Arc<Shared<R>>,
    wanted: &Wanted,
    question: String,
    answer: http::Response<Bytes>,
    index: u64,
) -> Option<Arc<Entry>> {
    let now = R::now();
    let mut entries = shared.cache.entries();
    if let Some(entry) = entries.get(&question) {
        let mut kept = entry.kept();
        if index >= kept.index {
            (kept.answer, kept.index) = (answer, index);
        }
        (kept.confirmed, kept.used) = (now, now);
        drop(kept);
        entry.news.notify_waiters();
        return Some(entry.clone());
    }
    if entries.len() >= AGENT_CACHE_ENTRIES_MAX {
        return None;
    }
    let entry = Arc::new(Entry {
        kept: Mutex::new(Kept {
            answer,
            index,
            confirmed: now,
            used: now,
            followed: true,
        }),
        news: Notify::new(),
    });
    entries.insert(question.clone(), entry.clone());
    drop(entries);
    drop(R::spawn(follow(
        shared.clone(),
        wanted.clone(),
        question,
        entry.clone(),
    )));
    Some(entry)
}

/// Waits for news of an answer at the servers, until nobody asks for it any more.
async fn follow<R: Runtime>(shared: Arc<Shared<R>>, wanted: Wanted, question: String, entry: Arc<Entry>) {
    let mut backoff = Backoff::new(AGENT_BACKOFF_MIN, AGENT_BACKOFF_MAX);
    let limit = AGENT_CACHE_WAIT * 17 / 16 + AGENT_FORWARD_SLACK;
    loop {
        let asked = {
            let mut entries = shared.cache.entries();
            let mut kept = entry.kept();
            if shared.stopping() || R::now().saturating_since(kept.used) > AGENT_CACHE_IDLE {
                kept.followed = false;
                entries.remove(&question);
                return;
            }
            kept.index
        };
        let fetched = fetch(&shared, &wanted, &question, asked, limit).await;
        let news = fetched.ok().filter(|answer| answer.status() == StatusCode::OK);
        let Some((answer, index)) = news.and_then(|answer| index_of(&answer).map(|index| (answer, index)))
        else {
            R::sleep(backoff.failed(R::random_u64())).await;
            continue;
        };
        backoff.succeeded();
        entry.take_news(answer, index, asked, R::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_that_were_overtaken_are_not_kept() {
        let at_index = |index: u64| Entry {
            kept: Mutex::new(Kept {
                answer: http::Response::new(Bytes::new()),
                index,
                confirmed: Instant(0),
                used: Instant(0),
                followed: true,
            }),
            news: Notify::new(),
        };
        let after = |kept: u64, asked: u64, told: u64| {
            let entry = at_index(kept);
            entry.take_news(http::Response::new(Bytes::new()), told, asked, Instant(1));
            entry.kept().index
        };
        assert_eq!(after(10, 10, 12), 12);
        assert_eq!(after(12, 10, 12), 12);
        assert_eq!(
            after(12, 10, 11),
            12,
            "a client fetched something newer meanwhile"
        );
        assert_eq!(after(10, 10, 3), 3, "the servers begin anew");
    }
}
