//! The plan of a rewind: from what is on record to ops, pure.
//!
//! Each node has two sides: its names (whether it is there at all among them) and its content. On
//! each side what was done last by those who are rewound is taken back, as far as nobody else came
//! after. Every op has preconditions on the server, so what changes meanwhile is left alone. What is
//! as it was already makes no op: a plan that was carried out half way goes on when made again.

use std::collections::HashMap;
use std::collections::HashSet;

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::Place;

use super::record::Aspect;
use super::record::Deed;
use super::record::Life;
use super::record::Record;

/// Begins the names that things have for a moment while others change places.
const ASIDE: &str = ".drivefs-rewind-";

/// What is to be done, in order, and what is left as it is.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub left: Vec<Left>,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub change: Change,
    pub verb: Verb,
    pub path: String,
    /// Where it was, of what moves.
    pub from: Option<String>,
}

/// What a step does, in the words of who undoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// It gets an older content.
    Revert,
    /// It comes back from the trash.
    Restore,
    /// It goes to the trash.
    Remove,
    /// It goes back to where it was.
    Move,
    /// It gets or loses one of several names.
    Link,
    Unlink,
    /// It goes out of the way for a moment.
    Aside,
}

/// What is not taken back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub path: String,
    pub why: String,
}

/// Makes the plan; `mine` says whose deeds are taken back.
pub fn plan(record: &Record, mine: impl Fn(&Deed) -> bool) -> Plan {
    let lives = Life::all(record);
    let mut tree = Tree::new(record, &lives);
    let mut plan = Plan::default();
    let mut tasks: Vec<(usize, Task)> = Vec::new();
    let order: HashMap<NodeId, usize> =
        record.deeds.iter().enumerate().map(|(i, d)| (d.node, i)).collect();
    for life in lives.iter().filter(|l| l.deeds.iter().any(|d| d.wanted)) {
        let (todo, left) = tasks_of(record, life, &mine);
        let last = order.get(&life.node).copied().unwrap_or_default();
        tasks.extend(todo.into_iter().map(|task| (last, task)));
        plan.left.extend(left);
    }
    // What was done last is undone first: folders come back before what was in them, and go after.
    tasks.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
    carry_out(&mut tree, tasks.into_iter().map(|(_, task)| task).collect(), &mut plan);
    plan
}

/// One thing to be done to one node.
#[derive(Debug, Clone)]
enum Task {
    Remove { node: NodeId, what: NodeKind, at: Place, seen: VersionNo, verb: Verb },
    Restore { node: NodeId, what: NodeKind, to: Place },
    Link { node: NodeId, to: Place },
    Move { node: NodeId, what: NodeKind, from: Place, to: Place },
    Revert { node: NodeId, at: Option<Place>, base: u64, version: u64 },
}

impl Task {
    fn place(&self) -> Option<&Place> {
        match self {
            Self::Remove { at, .. } => Some(at),
            Self::Restore { to, .. } | Self::Link { to, .. } | Self::Move { to, .. } => Some(to),
            Self::Revert { at, .. } => at.as_ref(),
        }
    }
}

/// What lies at the end of a list of deeds.
struct Tail<'a> {
    /// Where these begin in the list.
    begin: usize,
    /// Those to be taken back; all that came after belongs to others.
    run: Vec<&'a Deed>,
    /// The last one, if others did it.
    since: Option<&'a Deed>,
}

fn tail<'a>(deeds: &[&'a Deed], mine: &impl Fn(&Deed) -> bool) -> Option<Tail<'a>> {
    let end = deeds.iter().rposition(|d| mine(d))?;
    let begin = deeds[..end].iter().rposition(|d| !mine(d)).map_or(0, |i| i + 1);
    Some(Tail { begin, run: deeds[begin..=end].to_vec(), since: deeds[end + 1..].last().copied() })
}

/// What is to be done to a node, and what is left.
fn tasks_of(
    record: &Record,
    life: &Life<'_>,
    mine: &impl Fn(&Deed) -> bool,
) -> (Vec<Task>, Vec<Left>) {
    let (mut tasks, mut left) = (Vec::new(), Vec::new());
    let shown = || {
        let last = life.deeds.iter().rev().find_map(|d| d.to.as_ref().or(d.from.as_ref()));
        last.map(|p| record.path(life.names.first().unwrap_or(p))).unwrap_or_default()
    };
    let since = |d: &Deed| format!("changed since by {} ({})", d.who.user, d.who.device);
    let leave = |why: String| Left { path: shown(), why };
    let of = |aspect: fn(&Deed) -> bool| -> Vec<&Deed> {
        life.deeds.iter().copied().filter(|d| aspect(d)).collect()
    };
    let (named, contents) = (of(|d| d.kind.names()), of(|d| d.kind.content()));
    let mut alive = life.alive;
    if let Some(tail) = tail(&named, mine) {
        let (names, was_alive) = life.names_before(&named[tail.begin..]);
        let done = was_alive == life.alive && same_places(&names, &life.names);
        let first = tail.run[0].seq;
        let other = contents.iter().rev().find(|d| !mine(d) && d.seq >= first);
        let gone = life.deeds.last().map_or(0, |d| d.seq);
        if done {
            // As it was before: taken back already.
        } else if life.what == NodeKind::Mount {
            left.push(leave("a shared folder stays where it is".into()));
        } else if let Some(d) = tail.since {
            left.push(leave(since(d)));
        } else if let (Some(d), true, false) = (other, life.alive, was_alive) {
            left.push(leave(since(d)));
        } else if !life.alive && was_alive && gone <= record.emptied {
            left.push(leave("it is not in the trash any more".into()));
        } else {
            alive = was_alive;
            names_tasks(life, names, was_alive, &mut tasks);
        }
    }
    if life.what == NodeKind::File
        && alive
        && let Some(tail) = tail(&contents, mine)
    {
        let version = tail.run[0].before;
        let same = life.content(version) == life.content(life.version);
        match tail.since {
            _ if same || version == 0 => {}
            Some(d) => left.push(leave(since(d))),
            None => tasks.push(Task::Revert {
                node: life.node,
                at: place_of(life),
                base: life.version,
                version,
            }),
        }
    }
    (tasks, left)
}

fn place_of(life: &Life<'_>) -> Option<Place> {
    let told = || life.deeds.iter().rev().find_map(|d| d.to.clone().or_else(|| d.from.clone()));
    life.names.first().cloned().or_else(told)
}

fn same_places(a: &[Place], b: &[Place]) -> bool {
    a.len() == b.len() && a.iter().all(|p| b.contains(p))
}

/// From the names that a node has to those it had.
fn names_tasks(life: &Life<'_>, names: Vec<Place>, was_alive: bool, tasks: &mut Vec<Task>) {
    let (node, what) = (life.node, life.what);
    let mut lose: Vec<Place> = life.names.iter().filter(|p| !names.contains(p)).cloned().collect();
    let mut gain: Vec<Place> = names.into_iter().filter(|p| !life.names.contains(p)).collect();
    if !was_alive {
        tasks.extend(lose.into_iter().map(|at| Task::Remove {
            node,
            what,
            at,
            seen: life.version,
            verb: Verb::Remove,
        }));
        return;
    }
    if !life.alive
        && let Some(to) = gain.pop()
    {
        tasks.push(Task::Restore { node, what, to });
    }
    while !lose.is_empty() && !gain.is_empty() {
        if let (Some(from), Some(to)) = (lose.pop(), gain.pop()) {
            tasks.push(Task::Move { node, what, from, to });
        }
    }
    tasks.extend(gain.into_iter().map(|to| Task::Link { node, to }));
    let seen = life.version;
    let verb = Verb::Unlink;
    tasks.extend(lose.into_iter().map(|at| Task::Remove { node, what, at, seen, verb }));
}

/// The part of the tree that is on record, as it will be after the steps so far.
struct Tree<'a> {
    record: &'a Record,
    at: HashMap<Place, NodeId>,
    /// Entries known in each folder.
    children: HashMap<NodeId, usize>,
    dead: HashSet<NodeId>,
    folders: HashMap<NodeId, Place>,
}

impl<'a> Tree<'a> {
    fn new(record: &'a Record, lives: &[Life<'_>]) -> Self {
        let mut tree = Self {
            record,
            at: HashMap::new(),
            children: HashMap::new(),
            dead: lives.iter().filter(|l| !l.alive).map(|l| l.node).collect(),
            folders: record.folders.clone(),
        };
        for life in lives {
            for name in &life.names {
                tree.put(life.node, life.what.is_folder(), name);
            }
        }
        tree
    }

    fn put(&mut self, node: NodeId, folder: bool, place: &Place) {
        self.at.insert(place.clone(), node);
        *self.children.entry(place.parent).or_default() += 1;
        if folder {
            self.folders.insert(node, place.clone());
        }
    }

    fn take(&mut self, place: &Place) {
        if self.at.remove(place).is_some()
            && let Some(count) = self.children.get_mut(&place.parent)
        {
            *count -= 1;
        }
    }

    /// Why a node cannot go to a place now; none when it can.
    fn bars(&self, node: NodeId, to: &Place) -> Option<&'static str> {
        if self.at.contains_key(to) {
            return Some("its name is taken");
        }
        let mut up = Some(to.parent);
        for _ in 0..DEPTH_MAX {
            let Some(folder) = up else { break };
            if folder == node {
                return Some("its folder is inside it now");
            }
            if self.dead.contains(&folder) {
                return Some("its folder is gone");
            }
            up = self.folders.get(&folder).map(|p| p.parent);
        }
        None
    }

    /// Why a task cannot be done now.
    fn hinders(&self, task: &Task) -> Option<&'static str> {
        match task {
            Task::Remove { node, .. } if self.children.get(node).is_some_and(|n| *n > 0) => {
                Some("something newer is in it")
            }
            Task::Remove { .. } => None,
            Task::Restore { node, to, .. } => self.bars(*node, to),
            Task::Link { node, to } | Task::Move { node, to, .. } => {
                let gone = self.dead.contains(node).then_some("it is gone");
                gone.or_else(|| self.bars(*node, to))
            }
            Task::Revert { node, .. } => self.dead.contains(node).then_some("it is gone"),
        }
    }

    fn step(&mut self, task: Task) -> Step {
        let shown = task.place().map(|p| self.record.path(p)).unwrap_or_default();
        let step = |change, verb| Step { change, verb, path: shown, from: None };
        match task {
            Task::Remove { node, what, at, seen, verb } => {
                self.take(&at);
                if verb == Verb::Remove {
                    self.dead.insert(node);
                }
                let change = match what {
                    NodeKind::Dir => Change::Rmdir { node, place: at },
                    _ => Change::Unlink { node, place: at, version: Some(seen) },
                };
                step(change, verb)
            }
            Task::Restore { node, what, to } => {
                self.dead.remove(&node);
                self.put(node, what.is_folder(), &to);
                step(Change::Restore { node, place: to }, Verb::Restore)
            }
            Task::Link { node, to } => {
                self.put(node, false, &to);
                step(Change::Link { node, place: to }, Verb::Link)
            }
            Task::Move { node, what, from, to } => {
                self.take(&from);
                self.put(node, what.is_folder(), &to);
                let was = Some(self.record.path(&from));
                let change = Change::Move {
                    node,
                    from,
                    to,
                    replace: None,
                    replaced_version: None,
                    exchange: false,
                };
                Step { from: was, ..step(change, Verb::Move) }
            }
            Task::Revert { node, base, version, .. } => {
                step(Change::Revert { node, base_version: base, version }, Verb::Revert)
            }
        }
    }
}

/// Puts the tasks into an order in which each can be done.
fn carry_out(tree: &mut Tree<'_>, mut tasks: Vec<Task>, plan: &mut Plan) {
    let mut aside = HashSet::new();
    loop {
        let before = tasks.len();
        let mut waiting = Vec::new();
        for task in tasks {
            if tree.hinders(&task).is_some() {
                waiting.push(task);
            } else {
                plan.steps.push(tree.step(task));
            }
        }
        tasks = waiting;
        if tasks.is_empty() {
            return;
        }
        if tasks.len() < before {
            continue;
        }
        if !step_aside(tree, &mut tasks, plan, &mut aside) {
            break;
        }
    }
    for task in tasks {
        // Of what does not come back its content is not told of by itself.
        if matches!(task, Task::Revert { .. }) {
            continue;
        }
        let why = tree.hinders(&task).unwrap_or_default();
        let path = task.place().map(|p| tree.record.path(p)).unwrap_or_default();
        plan.left.push(Left { path, why: why.to_owned() });
    }
}

/// When names stand in each other's way, something that has to move does so in two steps: first
/// under another name into the folder where it goes, or to the top if that is not there yet. False
/// when nothing is won by that.
fn step_aside(
    tree: &mut Tree<'_>,
    tasks: &mut [Task],
    plan: &mut Plan,
    aside: &mut HashSet<(NodeId, bool)>,
) -> bool {
    for top in [false, true] {
        for task in &mut *tasks {
            let Task::Move { node, what, from, to } = task else { continue };
            let Ok(name) = Name::new(format!("{ASIDE}{node}")) else { continue };
            let parent = if top { tree.record.root } else { Some(to.parent) };
            let Some(parent) = parent else { continue };
            let there = Place { parent, name };
            if aside.contains(&(*node, top)) || tree.bars(*node, &there).is_some() {
                continue;
            }
            aside.insert((*node, top));
            let old = std::mem::replace(from, there.clone());
            let mut step = tree.step(Task::Move { node: *node, what: *what, from: old, to: there });
            step.verb = Verb::Aside;
            plan.steps.push(step);
            return true;
        }
    }
    false
}
