//! `/v1/catalog/…`: nodes and what is registered on them.

use axum::{Router, extract::State, middleware::map_response, response::Response};
use http::StatusCode;

use super::{
    body::JsonBody,
    commit,
    encode::Encoder,
    error::ApiError,
    health, later,
    options::{Name, Options, WriteOptions},
    read,
    reply::{self, Reply},
    requests::{parse_catalog_deregistration, parse_catalog_registration},
    write,
};
use crate::{
    registry::{Command, NodeName, Query, Refusal, ServiceName, Shape},
    server::{Answer, Server},
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/catalog/register", write(register))
        .route("/v1/catalog/deregister", write(deregister))
        .route("/v1/catalog/datacenters", read(datacenters))
        .route("/v1/catalog/nodes", read(nodes))
        .route("/v1/catalog/services", read(services))
        .route(
            "/v1/catalog/service/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/catalog/service/{*name}", read(service))
        .route(
            "/v1/catalog/connect/",
            read(async || ApiError::bad_request("Missing service name")),
        )
        .route("/v1/catalog/connect/{*name}", read(connect))
        .route(
            "/v1/catalog/gateway-services/",
            read(async || ApiError::bad_request("Missing gateway name")),
        )
        .route("/v1/catalog/gateway-services/{*name}", read(health::no_gateways))
        .route(
            "/v1/catalog/node/",
            read(async || ApiError::bad_request("Missing node name")),
        )
        .route("/v1/catalog/node/{*name}", read(node))
        .route(
            "/v1/catalog/node-services/",
            read(async || ApiError::bad_request("Missing node name")),
        )
        .route("/v1/catalog/node-services/{*name}", read(node_services))
        .layer(map_response(without_freshness))
}

/// To a read that failed Consul's catalog adds the headers of one of which nothing is known.
async fn without_freshness(response: Response) -> Response {
    later::mapped(response, |response| match response.status() {
        StatusCode::INTERNAL_SERVER_ERROR => reply::unknown_freshness(response),
        _ => response,
    })
}

/// `PUT /v1/catalog/register`: a node, with a service and checks if there are any.
async fn register(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let datacenter = &server.config().datacenter;
    let registration = parse_catalog_registration(&body, options.namespace.as_ref(), datacenter);
    let registration = registration.map_err(told_by_a_server)?;
    let (index, _) = commit(&server, Command::Register(vec![registration])).await?;
    Ok(Reply::json(&true).with_index(index))
}

/// What Consul's agents leave to its servers to find, whose errors have no other status.
fn told_by_a_server(mut error: ApiError) -> ApiError {
    let of_servers = [
        "Bad node ID: ",
        "Must provide address ",
        "Must provide service name ",
    ];
    if of_servers.iter().any(|words| error.message.starts_with(words)) {
        error.status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    error
}

/// `PUT /v1/catalog/deregister`: a node, a service or a check. As in Consul it is no error if there is none.
async fn deregister(
    State(server): State<Server>,
    options: WriteOptions,
    JsonBody(body): JsonBody,
) -> Result<Reply, ApiError> {
    let datacenter = &server.config().datacenter;
    let deregister = parse_catalog_deregistration(&body, options.namespace.as_ref(), datacenter)?;
    let written = server.write(Command::Deregister(deregister)).await?;
    match written.reply {
        Ok(_) | Err(Refusal::UnknownNode(_) | Refusal::UnknownInstance(_) | Refusal::UnknownCheck(_)) => {
            Ok(Reply::json(&true).with_index(written.index))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// `GET /v1/catalog/datacenters`: this one.
async fn datacenters(State(server): State<Server>) -> Reply {
    Reply::json(&[&server.config().datacenter])
}

/// `GET /v1/catalog/nodes`.
async fn nodes(State(server): State<Server>, options: Options) -> Result<Response, ApiError> {
    let query = Query::Nodes {
        node_meta: options.node_meta.clone(),
    };
    let query = options.filtered(query, Shape::Node, &server)?;
    later::encoded(server, query, &options, |encoder, view| encoder.nodes(view)).await
}

/// `GET /v1/catalog/services`: names with the union of their instances' tags.
async fn services(State(server): State<Server>, options: Options) -> Result<Response, ApiError> {
    let query = Query::Services {
        namespace: options.namespace.clone(),
        node_meta: options.node_meta.clone(),
    };
    let query = options.filtered(query, Shape::CatalogService, &server)?;
    later::encoded(server, query, &options, |encoder, view| encoder.services(view)).await
}

/// `GET /v1/catalog/service/{name}`: the instances of a service with their nodes.
async fn service(
    State(server): State<Server>,
    Name(service): Name<ServiceName>,
    options: Options,
) -> Result<Response, ApiError> {
    let query = Query::CatalogService {
        namespace: options.namespace.clone(),
        service,
        tags: options.tags.clone(),
        node_meta: options.node_meta.clone(),
    };
    instances(server, query, &options).await
}

/// `GET /v1/catalog/connect/{name}`: the instances through which a service is reached in a service mesh.
async fn connect(
    State(server): State<Server>,
    Name(service): Name<ServiceName>,
    options: Options,
) -> Result<Response, ApiError> {
    options.refuse_namespace()?;
    let query = Query::Connect {
        service,
        checks: false,
        passing: false,
        tags: options.tags.clone(),
        node_meta: options.node_meta.clone(),
    };
    instances(server, query, &options).await
}

/// Instances with their nodes, in the catalog's form.
async fn instances(server: Server, query: Query, options: &Options) -> Result<Response, ApiError> {
    let query = options.filtered(query, Shape::CatalogService, &server)?;
    later::encoded(server, query, options, |encoder, view| {
        encoder.catalog_service(view)
    })
    .await
}

/// `GET /v1/catalog/node/{name}`: a node with its services by id; `null` if there is none.
async fn node(
    State(server): State<Server>,
    Name(node): Name<NodeName>,
    options: Options,
) -> Result<Response, ApiError> {
    let query = Query::NodeServices {
        namespace: options.namespace.clone(),
        node,
    };
    let query = options.filtered(query, Shape::Service, &server)?;
    later::encoded(server, query, &options, |encoder, view| {
        encoder.node_with_services(view)
    })
    .await
}

/// `GET /v1/catalog/node-services/{name}`: the same with its services as a list.
async fn node_services(
    State(server): State<Server>,
    Name(node): Name<NodeName>,
    options: Options,
) -> Result<Response, ApiError> {
    let query = Query::NodeServices {
        namespace: options.namespace.clone(),
        node,
    };
    let query = options.filtered(query, Shape::Service, &server)?;
    let reply = |server: &Server, answer: &Answer, shown| {
        // The shared bytes are those of the other path's shape.
        let body = Encoder::new(server.config()).node_service_list(&answer.view.view);
        Reply::shown(answer, shown, body)
    };
    later::read(server, query, &options, reply).await
}
