//! The file API: uploads, downloads, revisions, and what is refused.

use drivefs_core::id::NamespaceId;
use drivefs_core::wire::Role;
use drivefs_server::drive::mounts;
use drivefs_server::drive::mounts::Guest;
use reqwest::Method;
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;
use serde_json::json;

use crate::world::Person;
use crate::world::World;
use crate::world::name;
use crate::world::noise;

const UNIT: usize = 256 * 1024;

/// An answer: status, head and JSON of the body, or null.
pub struct Answer {
    pub status: u16,
    pub heads: HeaderMap,
    pub json: Value,
}

impl Person {
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        heads: &[(&str, String)],
        body: Vec<u8>,
    ) -> Response {
        let path =
            if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        let mut request = self.http.request(method, path).body(body);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in heads {
            request = request.header(*name, value);
        }
        request.send().await.unwrap()
    }

    pub async fn rpc(&self, path: &str, arg: Value) -> Answer {
        answer(self.ask(Method::POST, path, &[], arg.to_string().into_bytes()).await).await
    }

    pub async fn done(&self, path: &str, arg: Value) -> Value {
        let answer = self.rpc(path, arg).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json);
        answer.json
    }

    pub async fn upload_to(&self, path: &str, bytes: Vec<u8>) -> Answer {
        let path = format!("/files/upload?uploadType=media&path={path}");
        answer(self.ask(Method::POST, &path, &[], bytes).await).await
    }

    pub async fn bytes_at(&self, path: &str) -> Vec<u8> {
        let arg = json!({ "path": path }).to_string().into_bytes();
        let response = self.ask(Method::POST, "/files/download", &[], arg).await;
        assert_eq!(response.status().as_u16(), 200);
        response.bytes().await.unwrap().to_vec()
    }

    /// Begins a resumable upload; answers its address.
    pub async fn begin(&self, arg: Value) -> String {
        let answer = self.rpc("/files/upload?uploadType=resumable", arg).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        let location = answer.heads["location"].to_str().unwrap().to_owned();
        assert!(location.starts_with(&self.url), "{location}");
        location
    }

    /// Puts a part, or with none asks the state.
    pub async fn part(&self, at: &str, range: &str, bytes: &[u8]) -> Answer {
        let heads = [("content-range", format!("bytes {range}"))];
        answer(self.ask(Method::PUT, at, &heads, bytes.to_vec()).await).await
    }
}

pub async fn answer(response: Response) -> Answer {
    let (status, heads) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    Answer { status, heads, json }
}

impl Answer {
    fn range(&self) -> Option<&str> {
        self.heads.get("range").map(|v| v.to_str().unwrap())
    }
}

/// A folder that both see as `/team`.
async fn team(world: &World, role: Role) -> NamespaceId {
    let guest = Guest { email: "bob@example.com".into(), role };
    let store = world.server.store();
    mounts::add(store, "alice@example.com", Some(guest), name("team")).await.unwrap()
}

#[tokio::test]
async fn a_file_is_uploaded_whole_and_comes_back_also_in_ranges() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bytes = noise(1, 3_000_000);
    let put = alice.upload_to("/recipes/soup/best_soup.txt", bytes.clone()).await;
    assert_eq!(put.status, 200, "{}", put.json);
    assert_eq!(put.json["size"], 3_000_000);
    assert_eq!(put.json["version"], 1);
    assert_eq!(alice.bytes_at("/recipes/soup/best_soup.txt").await, bytes);
    assert_eq!(alice.used().await, 3_000_000);

    let get = async |heads: &[(&str, String)], method: Method| {
        let path = "/files/download?path=/recipes/soup/best_soup.txt";
        alice.ask(method, path, heads, Vec::new()).await
    };
    let whole = get(&[], Method::GET).await;
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.content_length(), Some(3_000_000));
    let head = get(&[], Method::HEAD).await;
    assert_eq!(head.headers()["content-length"], "3000000");
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-2097160", 1_048_570, 2_097_161),
        ("bytes=2999999-", 2_999_999, 3_000_000),
        ("bytes=-5", 2_999_995, 3_000_000),
        ("bytes=5-99999999", 5, 3_000_000),
    ] {
        let part = get(&[("range", range.into())], Method::GET).await;
        assert_eq!(part.status().as_u16(), 206, "{range}");
        let told = format!("bytes {from}-{}/3000000", to - 1);
        assert_eq!(part.headers()["content-range"], told.as_str());
        assert_eq!(part.bytes().await.unwrap(), bytes[from..to], "{range}");
    }
    let beyond = get(&[("range", "bytes=3000000-".into())], Method::GET).await;
    assert_eq!(beyond.status().as_u16(), 416);
    assert_eq!(beyond.headers()["content-range"], "bytes */3000000");
    let known = get(&[("if-none-match", tag.clone())], Method::GET).await;
    assert_eq!(known.status().as_u16(), 304);
    let other = [("range", "bytes=0-1".into()), ("if-range", "\"other\"".into())];
    assert_eq!(get(&other, Method::GET).await.status().as_u16(), 200);
}

#[tokio::test]
async fn revisions_are_listed_read_and_restored_also_of_what_was_deleted() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    for text in ["one", "two", "three"] {
        assert_eq!(alice.upload_to("/a.txt", text.into()).await.status, 200);
    }
    let list = alice.done("/files/list_revisions", json!({"path": "/a.txt", "limit": 2})).await;
    assert_eq!((&list["is_deleted"], &list["has_more"]), (&json!(false), &json!(true)));
    let entries = list["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["size"], &entries[1]["version"]), (&json!(5), &json!(2)));
    let before = json!({"path": "/a.txt", "before_rev": entries[1]["rev"]});
    let older = alice.done("/files/list_revisions", before).await;
    let first = older["entries"][0]["rev"].as_str().unwrap();
    let arg = json!({"path": "/a.txt", "rev": first}).to_string().into_bytes();
    let got = alice.ask(Method::POST, "/files/download", &[], arg).await;
    assert_eq!(got.bytes().await.unwrap(), "one");

    alice.done("/files/delete_v2", json!({"path": "/a.txt"})).await;
    let list = alice.done("/files/list_revisions", json!({"path": "/a.txt"})).await;
    assert_eq!((&list["is_deleted"], list["entries"].as_array().unwrap().len()), (&json!(true), 3));
    let back = alice.done("/files/restore", json!({"path": "/a.txt", "rev": first})).await;
    assert_eq!(back["version"], 4);
    assert_eq!(alice.bytes_at("/a.txt").await, b"one");
    let wrong = alice.rpc("/files/list_revisions", json!({"path": "/none"})).await;
    assert_eq!((wrong.status, &wrong.json["error"]["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn a_resumable_upload_goes_on_from_what_is_here() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bytes = noise(2, 5 * UNIT + 100);
    let all = bytes.len();
    let at = alice.begin(json!({"path": "/big", "size": all})).await;
    let state = alice.part(&at, &format!("*/{all}"), b"").await;
    assert_eq!((state.status, state.range()), (308, None));
    let listed = alice.done("/files/list_folder", json!({"path": ""})).await;
    assert_eq!(listed["entries"], json!([]), "what has only begun is not there");
    let part = alice.part(&at, &format!("0-{}/{all}", UNIT - 1), &bytes[..UNIT]).await;
    assert_eq!((part.status, part.range()), (308, Some("bytes=0-262143")));
    // Overlapping with what is here, and of unknown length.
    let span = format!("0-{}/*", 3 * UNIT - 1);
    let part = alice.part(&at, &span, &bytes[..3 * UNIT]).await;
    assert_eq!((part.status, part.range()), (308, Some("bytes=0-786431")));
    let hole =
        alice.part(&at, &format!("{}-{}/{all}", 4 * UNIT, all - 1), &bytes[4 * UNIT..]).await;
    assert_eq!((hole.status, hole.range()), (308, Some("bytes=0-786431")));
    let end = alice.part(&at, &format!("{}-{}/{all}", 3 * UNIT, all - 1), &bytes[3 * UNIT..]).await;
    assert_eq!((end.status, &end.json["size"]), (200, &json!(all)));
    let again = alice.part(&at, &format!("*/{all}"), b"").await;
    assert_eq!((again.status, &again.json), (200, &end.json));
    assert_eq!(alice.bytes_at("/big").await, bytes);
}

#[tokio::test]
async fn parts_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let at = alice.begin(json!({"path": "/a", "size": 1_000_000})).await;
    for (range, len) in [
        ("0-99/1000000", 100),
        ("0-262143/999999", UNIT),
        ("0-262143/1000000", 5),
        ("5-4/1000000", 0),
        ("nonsense", 0),
    ] {
        let refused = alice.part(&at, range, &vec![0; len]).await;
        assert_eq!(refused.status, 400, "{range}");
        assert_eq!(refused.json["error"]["code"], "bad_request");
    }
    assert_eq!(alice.part(&at, "*/1000000", b"").await.range(), None);
    let unknown = format!("{}/files/upload/{}", alice.url, "0".repeat(32));
    assert_eq!(alice.part(&unknown, "*/5", b"").await.status, 404);
    let big = 11u64 << 30;
    let arg = json!({"path": "/big", "size": big});
    let refused = alice.rpc("/files/upload?uploadType=resumable", arg).await;
    assert_eq!((refused.status, &refused.json["error"]["code"]), (413, &json!("too_large")));
    let arg = json!({"path": "/big", "size": 2u64 << 30});
    let refused = alice.rpc("/files/upload?uploadType=resumable", arg).await;
    assert_eq!((refused.status, &refused.json["error"]["code"]), (507, &json!("quota_exceeded")));
    for path in ["nowhere", "/a/../b", "/.versions/x", ""] {
        let arg = json!({"path": path});
        let refused = alice.rpc("/files/upload?uploadType=resumable", arg).await;
        assert!((400..=409).contains(&refused.status), "{path}: {}", refused.status);
    }
    let gone = alice.ask(Method::DELETE, &at, &[], Vec::new()).await;
    assert_eq!(gone.status().as_u16(), 204);
    assert_eq!(alice.part(&at, "*/1000000", b"").await.status, 404);
}

#[tokio::test]
async fn empty_files_and_whole_bodies_need_no_parts() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let at = alice.begin(json!({"path": "/empty"})).await;
    assert_eq!(alice.part(&at, "*/0", b"").await.status, 200);
    assert_eq!(alice.bytes_at("/empty").await, b"");
    let at = alice.begin(json!({"path": "/whole"})).await;
    let put = answer(alice.ask(Method::PUT, &at, &[], b"all of it".to_vec()).await).await;
    assert_eq!((put.status, &put.json["size"]), (200, &json!(9)));
}

#[tokio::test]
async fn a_base_version_that_is_not_the_head_is_a_conflict() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let begin = async |base: u64| {
        let arg = json!({"path": "/a", "base_version": base});
        alice.rpc("/files/upload?uploadType=resumable", arg).await
    };
    assert_eq!(begin(1).await.status, 409);
    let early = begin(0).await;
    assert_eq!(early.status, 200);
    assert_eq!(alice.upload_to("/a", b"first".to_vec()).await.json["version"], 1);
    let at = early.heads["location"].to_str().unwrap().to_owned();
    let late = alice.part(&at, "0-3/4", b"late").await;
    assert_eq!((late.status, &late.json["error"]["code"]), (409, &json!("conflict")));
    assert_eq!(begin(0).await.status, 409);
    let at = begin(1).await.heads["location"].to_str().unwrap().to_owned();
    assert_eq!(alice.part(&at, "0-5/6", b"second").await.json["version"], 2);
    assert_eq!(alice.bytes_at("/a").await, b"second");
}

#[tokio::test]
async fn an_upload_belongs_to_who_began_it_and_needs_a_token() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let nobody = Person { token: String::new(), ..alice.clone() };
    let at = alice.begin(json!({"path": "/a", "size": 3})).await;
    alice.upload_to("/secret", b"secret".to_vec()).await;
    assert_eq!(bob.part(&at, "0-2/3", b"bob").await.status, 404);
    assert_eq!(nobody.part(&at, "0-2/3", b"bob").await.status, 401);
    let secret = alice.done("/files/get_metadata", json!({"path": "/secret"})).await;
    for path in [secret["id"].as_str().unwrap(), "/secret"] {
        let arg = json!({"path": path}).to_string().into_bytes();
        let got = bob.ask(Method::POST, "/files/download", &[], arg.clone()).await;
        assert_eq!(got.status().as_u16(), 404);
        let got = nobody.ask(Method::POST, "/files/download", &[], arg).await;
        assert_eq!(got.status().as_u16(), 401);
    }
    let rev = format!("rev:{}", secret["rev"].as_str().unwrap());
    let got = bob.rpc("/2/files/get_metadata", json!({"path": rev})).await;
    assert_eq!((got.status, &got.json["error_summary"]), (409, &json!("path/not_found/")));
    let cursor = alice.done("/files/list_folder", json!({"path": ""})).await["cursor"].clone();
    let got = bob.rpc("/2/files/list_folder/continue", json!({"cursor": cursor})).await;
    assert_eq!((got.status, &got.json["error"]), (409, &json!({".tag": "reset"})));
    let none = nobody.rpc("/2/files/list_folder", json!({"path": ""})).await;
    assert_eq!(none.status, 401);
    assert_eq!(none.json["error"], json!({".tag": "invalid_access_token"}));
}

#[tokio::test]
async fn shared_folders_are_walked_into_and_roles_hold() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    team(&world, Role::Viewer).await;
    let bytes = noise(3, 2_000_000);
    let put = alice.upload_to("/team/plans/a.bin", bytes.clone()).await;
    assert_eq!(put.status, 200, "{}", put.json);
    assert_eq!(bob.bytes_at("/team/plans/a.bin").await, bytes);
    let meta = bob.done("/files/get_metadata", json!({"path": "/team/plans/a.bin"})).await;
    assert_eq!(meta["sharing_info"]["read_only"], true);
    let all = bob.done("/files/list_folder", json!({"path": "", "recursive": true})).await;
    let paths: Vec<_> =
        all["entries"].as_array().unwrap().iter().map(|e| &e["path_display"]).collect();
    assert_eq!(paths, ["/team", "/team/plans", "/team/plans/a.bin"]);

    assert_eq!(bob.upload_to("/team/b", b"x".to_vec()).await.status, 403);
    let begun = bob.rpc("/files/upload?uploadType=resumable", json!({"path": "/team/b"})).await;
    assert_eq!(begun.status, 403);
    for (call, arg, tags) in [
        ("create_folder_v2", json!({"path": "/team/x"}), "path/no_write_permission/"),
        ("delete_v2", json!({"path": "/team/plans"}), "path_write/no_write_permission/"),
        ("delete_v2", json!({"path": "/team"}), "path_write/no_write_permission/"),
        (
            "move_v2",
            json!({"from_path": "/team/plans", "to_path": "/mine"}),
            "from_write/no_write_permission/",
        ),
        (
            "copy_v2",
            json!({"from_path": "/team/plans", "to_path": "/team/again"}),
            "to/no_write_permission/",
        ),
    ] {
        let refused = bob.rpc(&format!("/2/files/{call}"), arg).await;
        assert_eq!((refused.status, &refused.json["error_summary"]), (409, &json!(tags)), "{call}");
    }
    let arg = json!({"from_path": "/team/plans", "to_path": "/mine"});
    bob.done("/2/files/copy_v2", arg).await;
    assert_eq!(bob.bytes_at("/mine/a.bin").await, bytes, "to another account, by reference");
    assert_eq!(bob.used().await, 2_000_000);
}

#[tokio::test]
async fn an_editor_writes_into_what_another_owns_and_moves_between_both() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    team(&world, Role::Editor).await;
    let bytes = noise(4, 40_000_000);
    let at = bob.begin(json!({"path": "/team/big", "size": bytes.len()})).await;
    let half = 80 * UNIT;
    let all = bytes.len();
    bob.part(&at, &format!("0-{}/{all}", half - 1), &bytes[..half]).await;
    let end = bob.part(&at, &format!("{half}-{}/{all}", all - 1), &bytes[half..]).await;
    assert_eq!(end.status, 200, "{}", end.json);
    assert_eq!((alice.used().await, bob.used().await), (all as u64, 0));
    assert!(alice.bytes_at("/team/big").await == bytes, "a manifest of segments");
    bob.done("/files/move_v2", json!({"from_path": "/team/big", "to_path": "/own"})).await;
    assert_eq!((alice.used().await, bob.used().await), (0, all as u64));
    assert!(bob.bytes_at("/own").await == bytes);
    assert_eq!(alice.rpc("/files/get_metadata", json!({"path": "/team/big"})).await.status, 409);
}

#[tokio::test]
async fn names_that_are_no_text_come_back_as_they_are_shown() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let odd = drivefs_core::name::Name::new(b"\xff\xfe".to_vec()).unwrap();
    let content = alice.content(b"odd").await;
    let place = drivefs_core::wire::Place { parent: alice.root, name: odd };
    alice.one(crate::world::create(crate::world::node_id(), place, content)).await;
    let listed = alice.done("/files/list_folder", json!({"path": ""})).await;
    assert_eq!(listed["entries"][0]["path_display"], "//xfffe");
    assert_eq!(alice.bytes_at("//xfffe").await, b"odd");
}

#[tokio::test]
async fn others_are_told_that_an_upload_has_begun_and_that_it_has_ended() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let head = async || alice.changes(0, 10).await.unwrap().cursor;
    let before = head().await;
    let at = alice.begin(json!({"path": "/dir/a", "size": 5})).await;
    let begun = head().await;
    assert!(begun > before, "a poll that waits is answered");
    let arg = json!({"path": "/dir"});
    let pending = alice.done("/files/list_uploads", json!({"path": ""})).await;
    assert_eq!(pending["uploads"][0]["path"], "/dir/a");
    assert_eq!(pending["uploads"][0]["state"], "pending");
    assert_eq!(alice.rpc("/files/get_metadata", arg).await.status, 409);
    assert_eq!(alice.part(&at, "0-4/5", b"bytes").await.status, 200);
    assert!(head().await > begun);
    let pending = alice.done("/files/list_uploads", json!({"path": ""})).await;
    assert_eq!(pending["uploads"], json!([]));
}
