//! Random commits against invariants: the tree stays a tree, the counter stays exact, and pages of
//! changes of any size give the same tree as listing it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ListReply;
use drivefs_core::wire::ListRequest;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Place;
use drivefs_server::metadata::accounts;
use proptest::prelude::Just;
use proptest::prelude::ProptestConfig;
use proptest::prelude::Strategy;
use proptest::prelude::any;
use proptest::prelude::proptest;
use proptest::prop_oneof;

use crate::world::Person;
use crate::world::World;
use crate::world::attrs;
use crate::world::content_of;
use crate::world::create;
use crate::world::mkdir;
use crate::world::name;
use crate::world::node_id;
use crate::world::put;

/// Live entries by place.
type Entries = BTreeMap<(NodeId, Name), NodeId>;

/// What a client that applies pages knows.
#[derive(Default, Clone)]
pub struct Replica {
    pub nodes: HashMap<NodeId, NodeRow>,
    pub entries: Entries,
    pub cursor: u64,
}

impl Replica {
    /// Applies a page; every entry must come with knowledge of both its ends.
    pub fn apply(&mut self, page: ChangesReply) {
        for row in page.nodes {
            self.nodes.insert(row.node, row);
        }
        for row in page.dirents {
            assert!(self.nodes.contains_key(&row.parent), "an entry of an unknown directory");
            match row.child {
                Some(child) => {
                    assert!(self.nodes.contains_key(&child), "an entry of an unknown node");
                    self.entries.insert((row.parent, row.name), child);
                }
                None => drop(self.entries.remove(&(row.parent, row.name))),
            }
        }
        assert!(page.cursor > self.cursor || !page.more, "paging makes progress");
        self.cursor = page.cursor;
    }

    pub async fn pull(&mut self, person: &Person, limit: u32) {
        loop {
            let page = person.changes(self.cursor, limit).await.unwrap();
            let more = page.more;
            self.apply(page);
            if !more {
                return;
            }
        }
    }

    /// Live nodes and entries, to be compared.
    fn shape(&self) -> (BTreeMap<NodeId, (u64, u64)>, Entries) {
        let live = self.nodes.values().filter(|n| !n.deleted);
        (live.map(|n| (n.node, (n.version, n.seq))).collect(), self.entries.clone())
    }

    fn check_tree(&self, root: NodeId) {
        let mut parents: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for ((parent, _), child) in &self.entries {
            assert!(!self.nodes[child].deleted && !self.nodes[parent].deleted);
            assert_eq!(self.nodes[parent].kind, NodeKind::Dir);
            parents.entry(*child).or_default().push(*parent);
        }
        for row in self.nodes.values().filter(|n| !n.deleted && n.node != root) {
            let names = parents.get(&row.node).map_or(0, Vec::len);
            assert!(names >= 1, "live node {} has no name", row.node);
            assert!(row.kind != NodeKind::Dir || names == 1, "a directory of two names");
            let mut at = row.node;
            let mut seen = HashSet::new();
            while at != root {
                assert!(seen.insert(at), "a cycle through {at}");
                at = parents[&at][0];
            }
        }
        assert!(!parents.contains_key(&root));
    }
}

/// One op in terms that always apply: picks are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Create { dir: u8, name: u8, bytes: u8 },
    Mkdir { dir: u8, name: u8 },
    Put { node: u8, bytes: u8 },
    Link { node: u8, dir: u8, name: u8 },
    Move { entry: u8, dir: u8, name: u8, replace: bool, exchange: bool },
    Remove { entry: u8 },
    Setattr { node: u8 },
    Restore { node: u8, dir: u8, name: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (x, n) = (any::<u8>, || 0u8..4);
    prop_oneof![
        3 => (x(), n(), x()).prop_map(|(dir, name, bytes)| Step::Create { dir, name, bytes }),
        3 => (x(), n()).prop_map(|(dir, name)| Step::Mkdir { dir, name }),
        2 => (x(), x()).prop_map(|(node, bytes)| Step::Put { node, bytes }),
        2 => (x(), x(), n()).prop_map(|(node, dir, name)| Step::Link { node, dir, name }),
        5 => (x(), x(), n(), any::<bool>(), any::<bool>()).prop_map(
            |(entry, dir, name, replace, exchange)| Step::Move { entry, dir, name, replace, exchange }
        ),
        2 => x().prop_map(|entry| Step::Remove { entry }),
        3 => (x(), x(), n()).prop_map(|(node, dir, name)| Step::Restore { node, dir, name }),
        1 => (x(), Just(())).prop_map(|(node, ())| Step::Setattr { node }),
    ]
}

fn pick<T: Copy>(from: &[T], by: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[by as usize % from.len()])
}

fn change_of(step: &Step, replica: &Replica, contents: &[Blob]) -> Option<Change> {
    let mut nodes: Vec<_> = replica.nodes.keys().copied().collect();
    nodes.sort_unstable();
    let dirs: Vec<_> =
        nodes.iter().copied().filter(|n| replica.nodes[n].kind == NodeKind::Dir).collect();
    let entries: Vec<_> = replica.entries.iter().collect();
    let place = |dir: u8, label: u8| {
        Some(Place { parent: pick(&dirs, dir)?, name: name(&format!("n{label}")) })
    };
    let content = |bytes: u8| contents[bytes as usize % contents.len()].clone();
    Some(match *step {
        Step::Create { dir, name, bytes } => create(node_id(), place(dir, name)?, content(bytes)),
        Step::Mkdir { dir, name } => mkdir(node_id(), place(dir, name)?),
        Step::Put { node, bytes } => {
            let node = pick(&nodes, node)?;
            put(node, replica.nodes[&node].version, content(bytes))
        }
        Step::Link { node, dir, name } => {
            Change::Link { node: pick(&nodes, node)?, place: place(dir, name)? }
        }
        Step::Move { entry, dir, name, replace, exchange } => {
            let (from, node) = pick(&entries, entry)?;
            let to = place(dir, name)?;
            let there = replica.entries.get(&(to.parent, to.name.clone())).copied();
            let from = Place { parent: from.0, name: from.1.clone() };
            let replace = there.filter(|_| replace);
            Change::Move { node: *node, from, to, replace, replaced_version: None, exchange }
        }
        Step::Remove { entry } => {
            let (at, node) = pick(&entries, entry)?;
            let place = Place { parent: at.0, name: at.1.clone() };
            match replica.nodes[node].kind {
                NodeKind::Dir => Change::Rmdir { node: *node, place },
                _ => Change::Unlink { node: *node, place, version: None },
            }
        }
        Step::Restore { node, dir, name } => {
            let lost: Vec<_> = nodes.iter().copied().filter(|n| replica.nodes[n].deleted).collect();
            Change::Restore { node: pick(&lost, node)?, place: place(dir, name)? }
        }
        Step::Setattr { node } => Change::Setattr { node: pick(&nodes, node)?, attrs: attrs() },
    })
}

/// The tree as `list` shows it.
async fn listed(person: &Person) -> Entries {
    let mut out = BTreeMap::new();
    let mut todo = vec![person.root];
    while let Some(parent) = todo.pop() {
        let mut after = None;
        loop {
            let request = ListRequest { ns: person.ns, parent, after, limit: 2 };
            let reply: ListReply = person.post("/sync/v1/list", &request).await.unwrap();
            after = reply.dirents.last().map(|d| d.name.clone());
            for row in reply.dirents {
                out.insert((parent, row.name), row.child.unwrap());
            }
            todo.extend(reply.nodes.iter().filter(|n| n.kind == NodeKind::Dir).map(|n| n.node));
            if !reply.more {
                break;
            }
        }
    }
    out
}

async fn run(commits: Vec<Vec<Step>>, limit: u32) {
    let world = World::new().await;
    let alice = world.person_with("alice", 200).await;
    let blocks: Vec<Vec<u8>> = (1..=5u8).map(|i| vec![i; 10 * i as usize]).collect();
    alice.upload(&blocks).await;
    let contents: Vec<_> = blocks.iter().map(|b| content_of(&[b])).collect();

    let mut replica = Replica::default();
    replica.pull(&alice, 2000).await;
    let mut snapshots = vec![Replica::default()];
    for steps in commits {
        let changes = steps.iter().filter_map(|s| change_of(s, &replica, &contents)).collect();
        alice.commit(changes).await.unwrap();
        replica.pull(&alice, 2000).await;
        replica.check_tree(alice.root);
        snapshots.push(replica.clone());
    }

    let user = alice.account.user;
    let counted =
        world.server.store().read(move |sql| accounts::recount_used(sql, user)).await.unwrap();
    assert_eq!(alice.used().await, counted);
    assert!(counted <= 200);
    assert_eq!(replica.entries, listed(&alice).await);
    for mut snapshot in snapshots {
        snapshot.pull(&alice, limit).await;
        assert_eq!(snapshot.shape(), replica.shape());
    }
    world.server.stop().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn random_commits_keep_the_tree_the_counter_and_the_change_order(
        commits in proptest::collection::vec(proptest::collection::vec(step(), 1..12), 1..14),
        limit in 1u32..8,
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(commits, limit));
    }
}
