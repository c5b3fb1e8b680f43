//! Servers that do a part of the work, several on one database.

use drivefs_server::config::ALL_ROLES;

use crate::world::World;
use crate::world::http;

#[tokio::test]
async fn every_role_is_served_alone() {
    for role in ALL_ROLES {
        let world = World::with(|config| config.roles = vec![role]).await;
        let answer = http().get(format!("{}/healthz", world.url())).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{role:?}");
        let answer = http().post(format!("{}/nowhere", world.url())).send().await;
        assert_eq!(answer.unwrap().status(), 404, "{role:?}");
    }
}
