//! What a request says outside of its body: names in its path, parameters of its query, headers.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};

use super::{
    duration,
    error::{ApiError, echo},
};
use crate::{
    limits::{META_PAIRS_MAX, TAGS_PER_INSTANCE_MAX, WAIT_DEFAULT, WAIT_MAX},
    registry::{
        self, CheckId, Filter, InstanceId, InvalidName, Namespace, NodeName, ServiceName, SessionId, Shape,
    },
    server::{Consistency, ReadOptions, Server},
};

/// The parameters of a query string, in order; a name may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Parameters::of(&parts.uri)
    }
}

impl Parameters {
    /// Those of a URI.
    ///
    /// # Errors
    /// 400 where its query can't be read.
    pub fn of(uri: &http::Uri) -> Result<Parameters, ApiError> {
        Query::try_from_uri(uri)
            .map(|Query(pairs)| Parameters(pairs))
            .map_err(|error| ApiError::bad_request(format!("Invalid query string: {error}")))
    }

    /// The first value of a parameter that is there and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// All of them by name, as Go's `url.Values.Encode` writes them.
    pub fn encode(&self) -> String {
        let mut pairs: Vec<&(String, String)> = self.0.iter().collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        let pairs = pairs
            .into_iter()
            .map(|(name, value)| format!("{}={}", query_escape(name), query_escape(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there and not false: `?passing`, `?passing=1`, `?passing=true`.
    ///
    /// # Errors
    /// Its value is no boolean.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.all(name).next() {
            None => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(ApiError::bad_request(format!("Invalid value for ?{name}"))),
        }
    }

    /// `?filter` over records of a shape.
    ///
    /// # Errors
    /// It is none over such records.
    pub fn filter(&self, shape: Shape, datacenter: &str) -> Result<Option<Filter>, ApiError> {
        let filter = self
            .text("filter")
            .map(|text| Filter::parse(text, shape, datacenter));
        let filter = filter.transpose();
        filter.map_err(|error| ApiError::server_error(error.to_string()))
    }

    /// The namespace that a request names: `?ns`, or the header `X-Consul-Namespace`.
    ///
    /// # Errors
    /// It is no name.
    pub fn namespace(&self, headers: &http::HeaderMap) -> Result<Option<Namespace>, ApiError> {
        let header = headers
            .get("x-consul-namespace")
            .and_then(|value| value.to_str().ok());
        let name = self
            .text("ns")
            .or_else(|| self.text("namespace"))
            .or(header.filter(|name| !name.is_empty()));
        Ok(name.map(Namespace::parse).transpose()?)
    }
}

/// A text as Go writes it in a query.
fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The namespace that a write names outside of its body, its datacenter being checked already.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// `?ns`.
    pub namespace: Option<Namespace>,
    /// All parameters.
    pub parameters: Parameters,
}

impl FromRequestParts<Server> for WriteOptions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, ApiError> {
        let parameters = Parameters::from_request_parts(parts, server).await?;
        check_datacenter(&parameters, &server.config().datacenter)?;
        Ok(WriteOptions {
            namespace: parameters.namespace(&parts.headers)?,
            parameters,
        })
    }
}

/// How to read, and what of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `?ns`.
    pub namespace: Namespace,
    /// `?index`, `?wait`, `?stale`, `?consistent`, `?max_stale`.
    pub read: ReadOptions,
    /// Whether `?consistent` was asked for by name.
    pub consistent: bool,
    /// `?passing`.
    pub passing: bool,
    /// `?tag`: lower case, sorted, each once, so that equal questions are equal.
    pub tags: Vec<String>,
    /// `?node-meta=key:value`, sorted.
    pub node_meta: Vec<(String, String)>,
    /// All parameters.
    pub parameters: Parameters,
}

impl FromRequestParts<Server> for Options {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, ApiError> {
        let parameters = Parameters::from_request_parts(parts, server).await?;
        check_datacenter(&parameters, &server.config().datacenter)?;
        refuse_unsupported(&parameters)?;
        let namespace = parameters.namespace(&parts.headers)?.unwrap_or_default();
        Ok(Options {
            namespace,
            read: read_options(&parameters)?,
            consistent: parameters.has("consistent"),
            passing: parameters.flag("passing")?,
            tags: tags(&parameters)?,
            node_meta: node_meta(&parameters)?,
            parameters,
        })
    }
}

/// What an answer says of how it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// What `X-Consul-Effective-Consistency` says.
    pub consistency: &'static str,
    /// Whether `?cached` was asked for.
    pub cached: bool,
}

impl Options {
    /// What `X-Consul-Effective-Consistency` says.
    pub fn effective_consistency(&self) -> &'static str {
        match self.read.consistency {
            Consistency::Stale { .. } => "stale",
            Consistency::Linearizable if self.consistent => "consistent",
            Consistency::Linearizable => "leader",
        }
    }

    /// What an answer says of them.
    pub fn shown(&self) -> Shown {
        Shown {
            consistency: self.effective_consistency(),
            cached: self.parameters.has("cached"),
        }
    }

    /// A query whose answer lists records of a shape, narrowed by `?filter` if there is one.
    ///
    /// # Errors
    /// The filter is none over such records.
    pub fn filtered(
        &self,
        query: registry::Query,
        shape: Shape,
        server: &Server,
    ) -> Result<registry::Query, ApiError> {
        let narrowed = |query, filter| registry::Query::Filtered {
            query: Box::new(query),
            filter,
        };
        let query = match self.filter(shape, server)? {
            None => query,
            Some(filter) => narrowed(query, filter),
        };
        Ok(match self.of_peer(shape, server)? {
            None => query,
            Some(filter) => narrowed(query, filter),
        })
    }

    /// `?peer` as a filter: there are no peerings, so nothing is of any peer.
    fn of_peer(&self, shape: Shape, server: &Server) -> Result<Option<Filter>, ApiError> {
        let Some(peer) = self.parameters.text("peer") else {
            return Ok(None);
        };
        let field = match shape {
            Shape::Health => "Service.PeerName",
            _ => "PeerName",
        };
        let text = format!("{field} == {peer:?}");
        match Filter::parse(&text, shape, &server.config().datacenter) {
            Ok(filter) => Ok(Some(filter)),
            Err(_) => Err(ApiError::bad_request(format!(
                "Invalid query parameter: \"peer\": expected a peer's name, got {:?}",
                echo(peer)
            ))),
        }
    }

    /// `?filter` over records of a shape.
    ///
    /// # Errors
    /// It is none over such records.
    pub fn filter(&self, shape: Shape, server: &Server) -> Result<Option<Filter>, ApiError> {
        self.parameters.filter(shape, &server.config().datacenter)
    }

    /// Refuses a namespace for what is in the default one alone.
    ///
    /// # Errors
    /// Another one was named.
    pub fn refuse_namespace(&self) -> Result<(), ApiError> {
        match self.namespace == Namespace::default() {
            true => Ok(()),
            false => Err(ApiError::bad_request(
                "Invalid query parameter: \"ns\": expected the namespace \"default\", where the service mesh is",
            )),
        }
    }

    /// Whether an answer from local state will do.
    pub fn stale(&self) -> bool {
        matches!(self.read.consistency, Consistency::Stale { .. })
    }
}

/// How to read: `?index`, `?wait`, `?stale`, `?consistent`, `?max_stale`.
///
/// # Errors
/// 400 that says which of them can't be understood, or contradicts another.
pub(crate) fn read_options(parameters: &Parameters) -> Result<ReadOptions, ApiError> {
    let max_stale = match parameters.text("max_stale") {
        None => None,
        Some(text) => match duration::parse(text).map(u64::try_from) {
            Some(Ok(0)) => None,
            Some(Ok(nanos)) => Some(Duration::from_nanos(nanos)),
            _ => {
                return Err(ApiError::bad_request(
                    "Invalid max_stale time: expected a duration like \"10s\"",
                ));
            }
        },
    };
    // As in Consul, `stale=false` is stale too: the parameter's presence counts.
    let stale = parameters.has("stale") || max_stale.is_some();
    if stale && parameters.has("consistent") {
        return Err(ApiError::bad_request(
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ));
    }
    if parameters.has("cached") && parameters.has("consistent") {
        return Err(ApiError::bad_request(
            "Cannot specify ?cached with ?consistent, conflicting semantics.",
        ));
    }
    let index = match parameters.text("index") {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(index) => Some(index),
            Err(_) => return Err(ApiError::bad_request("Invalid index")),
        },
    };
    let wait = match parameters.text("wait") {
        None => WAIT_DEFAULT,
        Some(text) => match duration::parse(text) {
            None => return Err(ApiError::bad_request("Invalid wait time")),
            // A wait that is not positive is none given, as in Consul.
            Some(..=0) => WAIT_DEFAULT,
            Some(nanos) => Duration::from_nanos(nanos.unsigned_abs()).min(WAIT_MAX),
        },
    };
    Ok(ReadOptions {
        consistency: if stale {
            Consistency::Stale { max_stale }
        } else {
            Consistency::Linearizable
        },
        index,
        wait,
    })
}

fn tags(parameters: &Parameters) -> Result<Vec<String>, ApiError> {
    let mut tags: Vec<_> = parameters
        .all("tag")
        .filter(|tag| !tag.is_empty())
        .map(str::to_lowercase)
        .collect();
    if tags.len() > TAGS_PER_INSTANCE_MAX {
        return Err(ApiError::bad_request(format!(
            "Invalid ?tag: expected at most {TAGS_PER_INSTANCE_MAX}, got {}",
            tags.len()
        )));
    }
    tags.sort();
    tags.dedup();
    Ok(tags)
}

fn node_meta(parameters: &Parameters) -> Result<Vec<(String, String)>, ApiError> {
    let mut pairs: Vec<_> = parameters
        .all("node-meta")
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect();
    if pairs.len() > META_PAIRS_MAX {
        return Err(ApiError::bad_request(format!(
            "Invalid ?node-meta: expected at most {META_PAIRS_MAX}, got {}",
            pairs.len()
        )));
    }
    pairs.sort();
    pairs.dedup();
    Ok(pairs)
}

/// Parameters that narrow an answer in a way that is not there: an answer that ignores them would be a wrong one.
fn refuse_unsupported(parameters: &Parameters) -> Result<(), ApiError> {
    if parameters.text("partition").is_some() {
        return Err(ApiError::bad_request(
            "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature",
        ));
    }
    if parameters.text("sg").is_some() {
        return Err(ApiError::server_error(
            "sameness groups are not supported in consul CE",
        ));
    }
    Ok(())
}

fn check_datacenter(parameters: &Parameters, datacenter: &str) -> Result<(), ApiError> {
    match parameters.text("dc") {
        Some(named) if named != datacenter => Err(no_path()),
        _ => Ok(()),
    }
}

/// The request is for another datacenter.
pub(super) fn no_path() -> ApiError {
    ApiError::server_error("No path to datacenter")
}

/// A kind of name that a path can carry.
pub trait PathName: Sized + Send {
    /// Parses it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse_name(name: &str) -> Result<Self, InvalidName>;
}

macro_rules! path_names {
    ($($name:ty),*) => {
        $(impl PathName for $name {
            fn parse_name(name: &str) -> Result<Self, InvalidName> {
                Self::parse(name)
            }
        })*
    };
}

path_names!(CheckId, InstanceId, NodeName, ServiceName, SessionId);

/// The name at the end of a path: everything that follows, percent-decoded, slashes included, as Consul takes it.
#[derive(Clone, Debug)]
pub struct Name<T>(pub T);

impl<T: PathName, S: Send + Sync> FromRequestParts<S> for Name<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(format!("Invalid path: {}", error.body_text())))?;
        Ok(Name(T::parse_name(&name)?))
    }
}
