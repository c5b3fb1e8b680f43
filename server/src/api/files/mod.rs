//! The file API: `/files/...` by paths, with the calls of the Dropbox API v2 under `/2/...` too.
//!
//! Shapes and codes are made here; what happens is `drive/files`.

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

/// Routes that need a token. Bytes go through the role `blocks`, all else is `api`.
pub fn routes(roles: &[Role]) -> Router<Shared> {
    let mut routes = Router::new();
    if roles.contains(&Role::Api) {
        let calls = folders()
            .nest("/2", folders())
            .route("/2/users/get_space_usage", post(users::space_usage))
            .route("/2/users/get_current_account", post(users::current_account))
            .route("/users/get_space_usage", post(users::space_usage))
            .route("/users/get_current_account", post(users::current_account))
            .layer(DefaultBodyLimit::max(SMALL_BODY_MAX_BYTES))
            .route_layer(from_fn(timed));
        routes = routes.merge(calls);
    }
    if roles.contains(&Role::Blocks) {
        // No limit of time: a file may be large and a line slow.
        let bytes = content()
            .nest("/2", content())
            .route("/files/upload/{upload}", put(resumable::part).delete(resumable::cancel));
        routes = routes.merge(bytes);
    }
    routes
}

fn folders() -> Router<Shared> {
    Router::new()
        .route("/files/list_folder", post(folders::list))
        .route("/files/list_folder/continue", post(folders::list_on))
        .route("/files/list_folder/get_latest_cursor", post(folders::latest_cursor))
        .route("/files/get_metadata", post(folders::get_metadata))
        .route("/files/create_folder_v2", post(folders::create))
        .route("/files/move_v2", post(folders::relocate))
        .route("/files/copy_v2", post(folders::copy))
        .route("/files/delete_v2", post(folders::delete))
        .route("/files/restore", post(revisions::restore))
        .route("/files/list_revisions", post(revisions::list))
}

fn content() -> Router<Shared> {
    Router::new()
        .route("/files/upload", post(upload::upload))
        .route("/files/download", get(download::download).post(download::download))
        .route("/files/upload_session/start", post(sessions::start))
        .route("/files/upload_session/append_v2", post(sessions::append))
        .route("/files/upload_session/finish", post(sessions::finish))
}

/// A long poll is asked with a sealed cursor alone, as in the Dropbox API: it tells yes or no.
pub fn longpolls() -> Router<Shared> {
    let poll = || post(folders::longpoll);
    Router::new()
        .route("/files/list_folder/longpoll", poll())
        .route("/2/files/list_folder/longpoll", poll())
        .layer(DefaultBodyLimit::max(SMALL_BODY_MAX_BYTES))
}
