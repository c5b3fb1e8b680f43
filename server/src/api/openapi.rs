//! The OpenAPI document of all routes, made from the code: shapes from the types that are sent, calls
//! from their handlers. A test holds it against the routes.

use std::collections::BTreeMap;

use axum::Json;
use drivefs_core::wire::ErrorBody;
use drivefs_core::wire::WIRE_HEADER;
use drivefs_core::wire::WIRE_VERSION;
use utoipa::IntoResponses;
use utoipa::OpenApi;
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::Required;
use utoipa::openapi::path::ParameterBuilder;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::Http;
use utoipa::openapi::security::HttpAuthScheme;
use utoipa::openapi::security::SecurityScheme;

use super::auth;
use super::files::document::FileCalls;
use super::health;
use super::sync;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "drivefs server",
        description = "The file API (/files, and under /2 the calls of the Dropbox API v2), the \
                       sync protocol of mounts (/sync/v1), accounts and tokens (/auth/v1).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        auth::login,
        auth::logout,
        auth::list_tokens,
        auth::make_token,
        auth::revoke_token,
        sync::account,
        sync::missing,
        sync::packs,
        sync::blocks,
        sync::commit,
        sync::changes,
        sync::list,
        sync::poll,
        sync::versions,
        sync::keep,
        sync::events,
        sync::past,
        sync::gone,
        sync::trash,
        sync::empty_trash,
        health::healthz,
        health::readyz,
        health::metrics,
        document,
    ),
    tags(
        (name = "files", description = "Files by their paths"),
        (name = "sync", description = "The protocol of mounts; needs the header x-drivefs-wire: 1"),
        (name = "auth", description = "Login and tokens"),
        (name = "health", description = "For operators"),
    ),
    components(schemas(ErrorBody, Refusal, Octets)),
    security(("token" = []))
)]
struct Calls;

/// What any call may be answered with when it is not done.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes what `ApiError` and `Failure` send")]
pub enum Refused {
    /// The request is not one that the call takes.
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// The token is missing, or opens nothing.
    #[response(status = 401)]
    Unauthorized(Refusal),
    /// The state of things does not allow it; calls of the Dropbox API tell all refusals so.
    #[response(status = 409)]
    Conflict(Refusal),
    /// All other refusals and failures.
    #[response(status = "default")]
    Other(ErrorBody),
}

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "describes a body")]
pub struct Octets(Vec<u8>);

/// Ours, or that of the Dropbox API v2.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `ApiError` and `Failure` send")]
#[serde(untagged)]
pub enum Refusal {
    Own(ErrorBody),
    Union {
        /// The tags of the union, from the outside in.
        error_summary: String,
        /// A union, nested by `.tag`.
        #[schema(value_type = Object)]
        error: serde_json::Value,
        #[schema(value_type = Object)]
        user_message: serde_json::Value,
    },
}

/// All of it.
pub fn api() -> utoipa::openapi::OpenApi {
    let mut api = Calls::openapi();
    api.merge(FileCalls::openapi());
    let theirs: BTreeMap<String, PathItem> = api
        .paths
        .paths
        .iter()
        .filter(|(path, _)| super::files::is_under_2(path))
        .map(|(path, item)| (format!("/2{path}"), item.clone()))
        .collect();
    api.paths.paths.extend(theirs);
    for (path, item) in &mut api.paths.paths {
        complete(path, item);
    }
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    api.components.get_or_insert_default().add_security_scheme("token", token);
    api
}

/// What follows from the address: ids, unique in a document, and the header of our own protocols.
fn complete(path: &str, item: &mut PathItem) {
    let calls = [
        ("get", &mut item.get),
        ("head", &mut item.head),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("delete", &mut item.delete),
    ];
    for (method, call) in calls {
        let Some(call) = call else { continue };
        let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
        let id = [method].into_iter().chain(words).collect::<Vec<_>>().join("_");
        call.operation_id = Some(id);
        if path.starts_with("/sync/") || path.starts_with("/auth/") {
            let wire = ParameterBuilder::new()
                .name(WIRE_HEADER)
                .parameter_in(ParameterIn::Header)
                .required(Required::True)
                .schema(Some(
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .enum_values(Some([WIRE_VERSION.to_string()])),
                ));
            call.parameters.get_or_insert_default().push(wire.build().into());
        }
    }
}

/// As it is committed and printed.
pub fn text() -> anyhow::Result<String> {
    Ok(api().to_pretty_json()? + "\n")
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    responses((status = 200, description = "Done", body = Object)),
    security(()),
)]
pub async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(api())
}
