//! The file API: `/files/...` by paths, with the calls of the Dropbox API v2 under `/2/...` too.
//!
//! Shapes and codes are made here; what happens is `drive/files`.

pub mod document;

mod args;
mod download;
mod failure;
mod folders;
mod range;
mod resumable;
mod revisions;
mod sessions;
mod shapes;
mod upload;
mod users;

pub use args::style_of;
pub use failure::unauthorized;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::get;
use axum::routing::post;
use axum::routing::put;

use super::SMALL_BODY_MAX_BYTES;
use super::Shared;
use super::timed;
use crate::config::Role;

/// Where the calls are: by our own addresses, and by those of the Dropbox API v2.
const PREFIXES: [&str; 2] = ["", "/2"];

/// True for calls that are under `/2`, too.
pub fn is_under_2(path: &str) -> bool {
    let is_ours = path == "/files/list_uploads" || path.starts_with("/files/upload/");
    !is_ours && (path.starts_with("/files/") || path.starts_with("/users/"))
}

/// Routes that need a token. Bytes go through the role `blocks`, all else is `api`.
pub fn routes(roles: &[Role]) -> Router<Shared> {
    let mut routes = Router::new();
    if roles.contains(&Role::Api) {
        let mut calls = Router::new();
        for prefix in PREFIXES {
            calls = calls.merge(folders(prefix));
        }
        calls = calls.route("/files/list_uploads", post(folders::list_uploads));
        let calls =
            calls.layer(DefaultBodyLimit::max(SMALL_BODY_MAX_BYTES)).route_layer(from_fn(timed));
        routes = routes.merge(calls);
    }
    if roles.contains(&Role::Blocks) {
        // No limit of time: a file may be large and a line slow.
        for prefix in PREFIXES {
            routes = routes.merge(content(prefix));
        }
        routes =
            routes.route("/files/upload/{upload}", put(resumable::part).delete(resumable::cancel));
    }
    routes
}

fn folders(prefix: &str) -> Router<Shared> {
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/files/list_folder"), post(folders::list))
        .route(&at("/files/list_folder/continue"), post(folders::list_on))
        .route(&at("/files/list_folder/get_latest_cursor"), post(folders::latest_cursor))
        .route(&at("/files/get_metadata"), post(folders::get_metadata))
        .route(&at("/files/create_folder_v2"), post(folders::create))
        .route(&at("/files/move_v2"), post(folders::relocate))
        .route(&at("/files/copy_v2"), post(folders::copy))
        .route(&at("/files/delete_v2"), post(folders::delete))
        .route(&at("/files/restore"), post(revisions::restore))
        .route(&at("/files/list_revisions"), post(revisions::list))
        .route(&at("/users/get_space_usage"), post(users::space_usage))
        .route(&at("/users/get_current_account"), post(users::current_account))
}

fn content(prefix: &str) -> Router<Shared> {
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/files/upload"), post(upload::upload))
        .route(&at("/files/download"), get(download::download).post(download::download))
        .route(&at("/files/upload_session/start"), post(sessions::start))
        .route(&at("/files/upload_session/append_v2"), post(sessions::append))
        .route(&at("/files/upload_session/finish"), post(sessions::finish))
}

/// A long poll is asked with a sealed cursor alone, as in the Dropbox API: it tells yes or no.
pub fn longpolls() -> Router<Shared> {
    let mut routes = Router::new();
    for prefix in PREFIXES {
        let at = |path: &str| format!("{prefix}{path}");
        routes = routes.route(&at("/files/list_folder/longpoll"), post(folders::longpoll));
    }
    routes.layer(DefaultBodyLimit::max(SMALL_BODY_MAX_BYTES))
}
