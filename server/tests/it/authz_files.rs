//! Requests of the file API that do what their routes are for, for the test of all routes.

use drivefs_server::api::Route;
use reqwest::Method;
use reqwest::RequestBuilder;
use serde_json::Value;
use serde_json::json;

use crate::world::World;

pub fn is_of_files(path: &str) -> bool {
    ["/files/", "/users/", "/2/", "/internal/"].iter().any(|begin| path.starts_with(begin))
}

fn post(world: &World, path: &str, token: Option<&str>) -> RequestBuilder {
    let request = crate::world::http().post(format!("{}{path}", world.url()));
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

/// What a call answers to some token; nothing where it is refused.
async fn ask(world: &World, path: &str, token: Option<&str>, arg: Value) -> Value {
    let response = post(world, path, token).body(arg.to_string()).send().await.unwrap();
    json_of(response).await
}

async fn json_of(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null)
}

/// The owner puts a file into the shared folder.
async fn make(world: &World, owner: &str, path: &str) {
    let at = format!("/files/upload?uploadType=media&path={path}");
    let response = post(world, &at, Some(owner)).body("x").send().await.unwrap();
    assert!(response.status().is_success());
}

/// The status of a request that does what the route is for.
pub async fn status(world: &World, route: &Route, token: Option<&str>, owner: &str, n: u64) -> u16 {
    let call = route.path.trim_start_matches("/2");
    let made = format!("/team/made-{n}");
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let mut is_content = false;
    let mut path = route.path.to_owned();
    let mut range = None;
    let arg = match call {
        "/files/list_folder" | "/files/list_folder/get_latest_cursor" | "/files/list_uploads" => {
            json!({ "path": "/team" })
        }
        "/files/list_folder/continue" => {
            let latest = "/files/list_folder/get_latest_cursor";
            let got = ask(world, latest, token, json!({ "path": "/team" })).await;
            if token.is_some() && got["cursor"].is_null() {
                // Who may not list it has no cursor: one that is another's is none, too.
                let hers = ask(world, latest, Some(owner), json!({ "path": "/team" })).await;
                json!({ "cursor": text(&hers["cursor"]) })
            } else {
                json!({ "cursor": text(&got["cursor"]) })
            }
        }
        "/files/list_folder/longpoll" => json!({ "cursor": "AAAA", "timeout": 30 }),
        "/internal/v1/uploads/stored" => json!({ "user": 1, "upload": "x", "seal": "AAAA" }),
        "/files/get_metadata" | "/files/list_revisions" => json!({ "path": "/team/file" }),
        "/files/create_folder_v2" => json!({ "path": made }),
        "/files/copy_v2" => json!({ "from_path": "/team/file", "to_path": made }),
        "/files/move_v2" => {
            make(world, owner, &format!("/team/move-{n}")).await;
            json!({ "from_path": format!("/team/move-{n}"), "to_path": made })
        }
        "/files/delete_v2" => {
            make(world, owner, &made).await;
            json!({ "path": made })
        }
        "/files/restore" => {
            let of = json!({ "path": "/team/file" });
            let file = ask(world, "/files/get_metadata", Some(owner), of).await;
            json!({ "path": "/team/file", "rev": text(&file["rev"]) })
        }
        "/files/upload" => {
            is_content = true;
            if route.path == call {
                path.push_str(&format!("?uploadType=media&path={made}"));
            }
            json!({ "path": made })
        }
        "/files/download" => {
            is_content = route.path != call || route.method == "GET";
            if route.method == "GET" {
                path.push_str("?path=/team/file");
            }
            json!({ "path": "/team/file" })
        }
        "/files/upload_session/start" => {
            is_content = true;
            json!({})
        }
        "/files/upload_session/append_v2" | "/files/upload_session/finish" => {
            is_content = true;
            // Of the owner; what goes to a path, of who asks.
            let by = if call.ends_with("finish") { token } else { Some(owner) };
            let begin = post(world, "/2/files/upload_session/start", by)
                .header("dropbox-api-arg", "{}")
                .header("content-type", "application/octet-stream");
            let begun = json_of(begin.send().await.unwrap()).await;
            let cursor = json!({ "session_id": text(&begun["session_id"]), "offset": 0 });
            json!({ "cursor": cursor, "commit": { "path": made } })
        }
        "/files/upload/{upload}" => {
            let begin = json!({ "path": made, "size": 262_144 });
            let at = "/files/upload?uploadType=resumable";
            let begun = post(world, at, Some(owner)).body(begin.to_string()).send().await.unwrap();
            let at = begun.headers()["location"].to_str().unwrap().to_owned();
            path = at.strip_prefix(&world.url()).unwrap().to_owned();
            range = Some("bytes */262144");
            Value::Null
        }
        "/users/get_space_usage" | "/users/get_current_account" => Value::Null,
        _ => panic!("{route:?} needs a request here"),
    };
    let method: Method = route.method.parse().unwrap();
    let mut request = crate::world::http().request(method, format!("{}{path}", world.url()));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(range) = range {
        request = request.header("content-range", range);
    }
    request = match (is_content, arg) {
        (true, arg) if route.path != call || call.contains("session") => request
            .header("dropbox-api-arg", arg.to_string())
            .header("content-type", "application/octet-stream"),
        (true, _) => request,
        (false, Value::Null) => request,
        (false, arg) => request.header("content-type", "application/json").body(arg.to_string()),
    };
    request.send().await.unwrap().status().as_u16()
}
