//! What has to hold when a world has come to rest.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;

use bytes::Bytes;
use drivefs::remote::unpack;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NodeId;
use drivefs_core::id::PackId;
use drivefs_core::manifest::Root;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::WantedBlock;
use drivefs_server::metadata::DbError;

use super::device::Seen;
use super::world::World;
use super::world::same;

/// What makes a file a conflict file.
const CONFLICT_XATTR: &str = "user.drivefs.conflict-of";
/// Blocks asked for at once.
const BLOCKS_AT_ONCE: usize = 500;

/// A version as the server has it.
struct Version {
    node: NodeId,
    version: u64,
    content: Vec<u8>,
}

impl World {
    pub async fn server_seq(&self) -> u64 {
        let server = self.net.server().expect("the server is up");
        let root = self.devices[0].root;
        let rows = server
            .drive()
            .store
            .read(move |sql| sql.query("SELECT seq FROM namespace WHERE ns = ?1", &[root.into()]));
        rows.await.expect("reads")[0].get(0).expect("a number")
    }

    async fn rows<T: Send + 'static>(
        &self,
        query: &'static str,
        row: impl Fn(&drivefs_server::metadata::value::Row) -> Result<T, DbError> + Send + 'static,
    ) -> Vec<T> {
        let server = self.net.server().expect("the server is up");
        let rows = server.drive().store.read(move |sql| {
            sql.query(query, &[])?.iter().map(&row).collect::<Result<Vec<_>, DbError>>()
        });
        rows.await.expect("reads")
    }

    /// All promises at once.
    pub async fn check(&mut self) {
        let witness = self.witness().await;
        self.check_trees(witness);
        self.check_devices(witness);
        let versions = self
            .rows("SELECT node, version, content FROM file_version", |row| {
                Ok(Version { node: row.get(0)?, version: row.get(1)?, content: row.get(2)? })
            })
            .await;
        self.check_acknowledged(&versions);
        let plain = self.load(witness, &versions).await;
        self.check_ledger(&versions, &plain);
        self.check_conflicts(witness, &plain);
        self.check_blocks(&versions).await;
        self.check_quota().await;
    }

    fn check_trees(&self, witness: usize) {
        let all = self.devices[witness].seen();
        for device in &self.devices[..witness] {
            let what = format!("the server and {} differ", device.name);
            same(&all, &device.seen(), &what);
        }
    }

    /// Nothing waits, nothing is left over.
    fn check_devices(&self, witness: usize) {
        for device in &self.devices[..witness] {
            let name = &device.name;
            let tree = device.tree();
            assert_eq!(tree.ahead().expect("counts"), (0, 0), "{name} has intents");
            for (path, node) in device.nodes() {
                assert!(node.live.is_none() && node.frozen.is_none(), "{name} spools {path}");
            }
            // All that is here is on the server, so all of it can go.
            tree.spool().forget_unused();
            tree.drop_orphans().expect("drops");
            let cache = tree.spool().cache();
            cache.note_uses().expect("notes");
            cache.relieve(1 << 30).expect("evicts");
            let left = tree.db().peek(|c| c.cached_bytes());
            assert_eq!(left.expect("counts"), (0, 0), "{name} keeps blocks");
            assert_eq!(device.on().handle.status().error, None, "{name}");
            tree.db().check().expect("a whole database");
        }
    }

    /// What the server said it has, it has.
    fn check_acknowledged(&self, versions: &[Version]) {
        let there: HashMap<(NodeId, u64), &[u8]> =
            versions.iter().map(|v| ((v.node, v.version), v.content.as_slice())).collect();
        for one in self.net.acknowledged() {
            // The same content again is no new version: then the newest one has it.
            let found = there.get(&(one.node, one.version));
            assert_eq!(found, Some(&one.content.as_slice()), "{} {}", one.node, one.version);
        }
    }

    /// The bytes of every version, from the server.
    async fn load(&self, witness: usize, versions: &[Version]) -> HashMap<Vec<u8>, Vec<u8>> {
        let mut lists = HashMap::new();
        let mut wanted = BTreeSet::new();
        for version in versions {
            let root = Root::decode(&version.content).expect("a manifest");
            let Root::Inline(entries) = root else { panic!("small files have no segments") };
            wanted.extend(entries.iter().map(|e| e.hash.0));
            lists.insert(version.content.clone(), entries);
        }
        let remote = self.direct(witness);
        let mut blocks: HashMap<BlockHash, Bytes> = HashMap::new();
        for chunk in wanted.into_iter().collect::<Vec<_>>().chunks(BLOCKS_AT_ONCE) {
            let wanted =
                chunk.iter().map(|hash| WantedBlock { hash: BlockHash(*hash), base: None });
            let request =
                BlocksRequest { ns: self.devices[witness].root, blocks: wanted.collect() };
            let mut frames = remote.blocks(&request).await.expect("the server has all blocks");
            while let Some(frame) = frames.next().await.expect("whole") {
                let hash = frame.hash;
                blocks.insert(hash, unpack(frame).expect("a block that fits its hash"));
            }
        }
        let bytes = |entries: Vec<drivefs_core::manifest::Entry>| {
            let mut out = Vec::new();
            for entry in entries {
                out.extend_from_slice(blocks.get(&entry.hash).expect("the block of a version"));
            }
            out
        };
        lists.into_iter().map(|(content, entries)| (content, bytes(entries))).collect()
    }

    /// What programs wrote and did not take away themselves is in some version.
    fn check_ledger(&mut self, versions: &[Version], plain: &HashMap<Vec<u8>, Vec<u8>>) {
        let there: HashSet<&[u8]> = plain.values().map(Vec::as_slice).collect();
        let _ = versions;
        for (device, content) in self.take_ledger() {
            let name = &self.devices[device].name;
            let text = String::from_utf8_lossy(&content[..content.len().min(120)]).into_owned();
            assert!(
                there.contains(content.as_slice()),
                "what {name} wrote is lost ({} bytes): {text}",
                content.len()
            );
        }
    }

    /// A conflict made one file, however often it was met: its content is in no other conflict file,
    /// nor in its own origin. (What one device removed while two others moved it, both keep.)
    fn check_conflicts(&self, witness: usize, plain: &HashMap<Vec<u8>, Vec<u8>>) {
        let seen = self.devices[witness].seen();
        let bytes_of = |node: &Seen| -> Option<&Vec<u8>> {
            Some(plain.get(node.content.as_ref()?).expect("a version"))
        };
        let by_node: HashMap<&str, &Seen> =
            seen.values().map(|node| (node.node.as_str(), node)).collect();
        let mut marked: HashMap<&Vec<u8>, (&str, &String)> = HashMap::new();
        for (path, node) in &seen {
            let Some(mark) = node.xattrs.get(CONFLICT_XATTR) else { continue };
            let Some(bytes) = bytes_of(node).filter(|bytes| !bytes.is_empty()) else { continue };
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            if let Some((other, at)) = marked.insert(bytes, (node.node.as_str(), path)) {
                assert!(other == node.node, "one conflict in {path} and {at}: {text}");
            }
            let mark: serde_json::Value = serde_json::from_slice(mark).expect("a mark");
            let origin = by_node.get(mark["node"].as_str().expect("an origin"));
            let same = origin.is_some_and(|origin| bytes_of(origin) == Some(bytes));
            assert!(!same, "{path} is its own origin's content: {text}");
        }
    }

    /// Rows and packs belong together, and every block of a commit is there.
    async fn check_blocks(&self, versions: &[Version]) {
        let rows = self
            .rows("SELECT hash, pack FROM block", |row| {
                Ok((row.get::<BlockHash>(0)?, row.get::<PackId>(1)?))
            })
            .await;
        let packs: HashSet<PackId> = self
            .rows("SELECT pack FROM pack WHERE dead IS NULL", |row| row.get(0))
            .await
            .into_iter()
            .collect();
        let server = self.net.server().expect("up");
        let stored: HashSet<PackId> =
            server.drive().blocks.list().await.expect("lists").into_iter().collect();
        for (hash, pack) in &rows {
            assert!(packs.contains(pack), "block {hash} is in an unknown pack");
        }
        for pack in &packs {
            assert!(stored.contains(pack), "pack {pack} is not in the store");
        }
        let held: HashSet<BlockHash> = rows.iter().map(|r| r.0).collect();
        let mut used = HashSet::new();
        for version in versions {
            let Ok(Root::Inline(entries)) = Root::decode(&version.content) else { continue };
            assert!(entries.iter().all(|e| held.contains(&e.hash)), "a block without a row");
            used.extend(entries.into_iter().map(|e| e.hash));
        }
        let unused = held.iter().filter(|hash| !used.contains(*hash)).count();
        assert_eq!(unused, 0, "blocks that nothing refers to");
    }

    /// The account is charged for what is there.
    async fn check_quota(&self) {
        let used = self.rows("SELECT used FROM user", |row| row.get::<u64>(0)).await;
        let sizes = self
            .rows(
                "SELECT v.size FROM node n JOIN file_version v
                 ON v.ns = n.ns AND v.node = n.node AND v.version = n.version
                 WHERE n.deleted_ns IS NULL",
                |row| row.get::<u64>(0),
            )
            .await;
        assert_eq!(used, [sizes.iter().sum::<u64>()], "the account's use");
    }
}
