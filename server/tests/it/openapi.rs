//! The OpenAPI document: it is the committed one, has every route, and every call asks who is there.

use drivefs_server::api::ROUTES;
use reqwest::Method;
use serde_json::Value;

use crate::files::answer;
use crate::world::Person;
use crate::world::World;

async fn document(person: &Person) -> Value {
    answer(person.ask(Method::GET, "/openapi.json", &[], Vec::new()).await).await.json
}

/// Method, path and call of all that is documented.
fn calls(document: &Value) -> Vec<(Method, String, Value)> {
    let mut out = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            out.push((method, path.clone(), call.clone()));
        }
    }
    out
}

#[tokio::test]
async fn the_committed_document_is_that_of_this_code() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let stale = "it is stale: drivefs-server openapi > docs/openapi.json";
    assert!(committed == document(&alice).await, "{stale}");
}

#[tokio::test]
async fn every_route_is_documented() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let document = document(&alice).await;
    // What the server's own processes tell each other is nobody else's.
    for route in ROUTES.iter().filter(|route| !route.path.starts_with("/internal/")) {
        let call = &document["paths"][route.path][route.method.to_lowercase()];
        assert!(call.is_object(), "{} {} is not documented", route.method, route.path);
    }
}

#[tokio::test]
async fn every_call_asks_who_is_there() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let strangers = [
        Person { token: String::new(), ..alice.clone() },
        Person { token: format!("dfs_{}", "0".repeat(64)), ..alice.clone() },
    ];
    for (method, path, call) in calls(&document(&alice).await) {
        let at = path.replace("{name}", "x").replace("{upload}", &"0".repeat(32));
        let is_open = call.get("security").is_some_and(|s| s == &serde_json::json!([{}]));
        for stranger in &strangers {
            let heads = [("x-drivefs-wire", "1".to_owned())];
            let response = stranger.ask(method.clone(), &at, &heads, b"{}".to_vec()).await;
            let status = response.status().as_u16();
            if is_open {
                assert!(status < 500 && status != 401, "{method} {path}: {status}");
            } else {
                assert_eq!(status, 401, "{method} {path}");
            }
        }
        // With a token it is there, whatever it says of an empty request.
        if !is_open && path != "/auth/v1/logout" {
            let heads = [("x-drivefs-wire", "1".to_owned())];
            let response = alice.ask(method.clone(), &at, &heads, b"{}".to_vec()).await;
            let status = response.status().as_u16();
            assert!(status < 500 && status != 401 && status != 405, "{method} {path}: {status}");
        }
    }
}
