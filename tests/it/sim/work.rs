//! What programs do on a device: small random changes through the floor that the kernel adapter
//! calls. Every content that is written is unlike any other.

use std::collections::BTreeSet;

use drivefs::tree::NewNode;
use drivefs::tree::RenameMode;
use drivefs::tree::SetAttrs;
use drivefs::tree::TreeError;
use drivefs_core::node::NodeKind;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::device::Device;
use crate::story::ME;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Bytes that make a file of several blocks.
const LARGE_BYTES: usize = 700 * 1024;

/// What a change did to contents.
#[derive(Default)]
pub struct Done {
    pub what: String,
    /// Contents that the program itself overwrote or removed.
    pub dropped: Vec<Vec<u8>>,
    /// Files of which it did so without having all of their content here.
    pub dropped_unseen: Vec<u64>,
    /// The file that was written, and the content that is there now.
    pub written: Option<(u64, Vec<u8>)>,
    pub error: Option<TreeError>,
}

impl Done {
    /// Notes that a file's content is about to be overwritten or removed.
    fn drops(&mut self, device: &Device, nid: u64) {
        match device.read_here(nid) {
            Some(bytes) => self.dropped.push(bytes),
            None => self.dropped_unseen.push(nid),
        }
    }
}

struct Place {
    folder: u64,
    name: &'static str,
    path: String,
}

fn places(device: &Device, rng: &mut SmallRng) -> Place {
    let mut folders = vec![device.ground()];
    for (path, node) in device.nodes_of_its_ground() {
        if node.kind.is_folder() {
            folders.push((node.nid, format!("{path}/")));
        }
    }
    let (folder, dir) = folders.swap_remove(rng.random_range(0..folders.len()));
    let name = NAMES[rng.random_range(0..NAMES.len())];
    Place { folder, name, path: format!("{dir}{name}") }
}

/// Bytes that nobody wrote before: the tag, and what makes it long.
fn fresh(device: &Device, count: usize, rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = format!("[{} {count}]", device.name).into_bytes();
    let more = match rng.random_range(0..40) {
        0 => LARGE_BYTES,
        1..=4 => rng.random_range(0..90_000),
        _ => rng.random_range(0..60),
    };
    let seed: u64 = rng.random();
    let mut state = seed | 1;
    bytes.extend((0..more).map(|i| {
        // Text and noise in turns, so that it compresses as files do.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (i / 4096) % 2 == 0 { b'a' + (i % 23) as u8 } else { (state >> 56) as u8 }
    }));
    bytes
}

/// One random change.
pub fn change(device: &mut Device, rng: &mut SmallRng, count: usize) -> Done {
    let place = places(device, rng);
    let there = device.fs().lookup(place.folder, place.name.as_bytes()).ok();
    let kind = there.as_ref().map(|attr| attr.kind);
    let path = &place.path;
    match (rng.random_range(0..100), kind) {
        (0..40, None | Some(NodeKind::File)) => write(device, rng, count, &place),
        (40..50, None) => {
            let new = new_node(NodeKind::Dir, 0o755, None);
            let made = device.fs().make(place.folder, place.name.as_bytes(), ME, new);
            done(format!("mkdir {path}"), made.map(drop))
        }
        (50..54, None) => {
            let target = format!("to {count}").into_bytes();
            let new = new_node(NodeKind::Symlink, 0o777, Some(target));
            let made = device.fs().make(place.folder, place.name.as_bytes(), ME, new);
            done(format!("symlink {path}"), made.map(drop))
        }
        (54..58, None) => link(device, rng, &place),
        (40..48, Some(NodeKind::File)) => hold(device, &place),
        (48..60, Some(_)) => remove(device, &place),
        (60..64, Some(_)) => {
            let mode = [0o644, 0o600, 0o755, 0o700][rng.random_range(0..4)];
            let set = SetAttrs { mode: Some(mode), ..SetAttrs::default() };
            let nid = there.expect("there").nid;
            done(format!("chmod {mode:o} {path}"), device.fs().setattr(nid, &set, None).map(drop))
        }
        (64..68, Some(_)) => {
            let nid = there.expect("there").nid;
            let name = ["user.x", "user.y"][rng.random_range(0..2)].as_bytes();
            let value = format!("{count}").into_bytes();
            let value = (rng.random_range(0..3) > 0).then_some(value.as_slice());
            done(format!("setxattr {path}"), device.fs().setxattr(nid, name, value, 0))
        }
        (68..72, Some(NodeKind::File)) => {
            device.read_in_background(there.expect("there").nid);
            done(format!("read {path}"), Ok(()))
        }
        (72..78, _) => write_held(device, rng, count),
        (78..82, _) => {
            let Some((nid, handle)) = device.on.as_mut().expect("on").held.pop() else {
                return Done::default();
            };
            done(format!("close {nid}"), device.fs().release(handle))
        }
        (82..100, Some(_)) => rename(device, rng, &place),
        _ => Done::default(),
    }
}

fn new_node(kind: NodeKind, mode: u32, target: Option<Vec<u8>>) -> NewNode {
    NewNode { kind, mode, uid: None, gid: None, rdev: 0, target }
}

fn done(what: String, result: Result<(), TreeError>) -> Done {
    Done { what, error: result.err(), ..Done::default() }
}

/// The files at a place and below it.
fn files_below(device: &Device, path: &str) -> BTreeSet<u64> {
    let below = format!("{path}/");
    device
        .nodes()
        .into_iter()
        .filter(|(p, n)| (p == path || p.starts_with(&below)) && n.kind == NodeKind::File)
        .map(|(_, n)| n.nid)
        .collect()
}

fn write(device: &Device, rng: &mut SmallRng, count: usize, place: &Place) -> Done {
    let bytes = fresh(device, count, rng);
    let how = rng.random_range(0..6);
    let sync = rng.random_range(0..6) == 0;
    let name = place.name.as_bytes();
    let fs = device.fs();
    let mut out = Done::default();
    let attempt = || -> Result<u64, TreeError> {
        let (nid, handle) = match fs.lookup(place.folder, name) {
            Ok(attr) => (attr.nid, fs.open(attr.nid, true)?),
            Err(TreeError::NotFound) => {
                let (attr, handle) = fs.create(place.folder, name, ME, 0o644)?;
                (attr.nid, handle)
            }
            Err(e) => return Err(e),
        };
        let written = (|| {
            let size = fs.getattr(nid)?.size;
            let offset = match how {
                // Append.
                0 => size,
                // Overwrite a part, and cut off what is behind it.
                1 => {
                    let offset = size / 2;
                    fs.setattr(nid, &SetAttrs::default(), Some(offset))?;
                    offset
                }
                // Overwrite the beginning in place.
                2 => 0,
                _ => {
                    fs.setattr(nid, &SetAttrs::default(), Some(0))?;
                    0
                }
            };
            fs.write(nid, handle, offset, &bytes, false)?;
            if sync { fs.fsync(nid, handle) } else { Ok(()) }
        })();
        let released = fs.release(handle);
        written?;
        released?;
        Ok(nid)
    };
    if let Ok(attr) = fs.lookup(place.folder, name) {
        out.drops(device, attr.nid);
    }
    out.what = format!("write {} ({how}, {} bytes, sync {sync})", place.path, bytes.len());
    match attempt() {
        Ok(nid) => out.written = device.read_here(nid).map(|bytes| (nid, bytes)),
        Err(e) => out.error = Some(e),
    }
    out
}

fn hold(device: &mut Device, place: &Place) -> Done {
    let fs = device.fs().clone();
    let opened = fs
        .lookup(place.folder, place.name.as_bytes())
        .and_then(|attr| Ok((attr.nid, fs.open(attr.nid, true)?)));
    match opened {
        Ok(held) => {
            device.on.as_mut().expect("on").held.push(held);
            done(format!("open {} ({})", place.path, held.0), Ok(()))
        }
        Err(e) => done(format!("open {}", place.path), Err(e)),
    }
}

fn write_held(device: &Device, rng: &mut SmallRng, count: usize) -> Done {
    let held = &device.on().held;
    if held.is_empty() {
        return Done::default();
    }
    let (nid, handle) = held[rng.random_range(0..held.len())];
    let bytes = fresh(device, count, rng);
    let mut out = Done { what: format!("write open {nid}"), ..Done::default() };
    out.drops(device, nid);
    let fs = device.fs();
    let size = fs.getattr(nid).map_or(0, |attr| attr.size);
    match fs.write(nid, handle, size, &bytes, false) {
        Ok(()) if fs.is_named(nid) => {
            out.written = device.read_here(nid).map(|bytes| (nid, bytes));
        }
        Ok(()) => {}
        Err(e) => out.error = Some(e),
    }
    out
}

fn remove(device: &Device, place: &Place) -> Done {
    let (fs, name) = (device.fs(), place.name.as_bytes());
    let is_folder = device.tree().lookup(place.folder, name).is_ok_and(|n| n.kind.is_folder());
    if is_folder {
        return done(format!("rmdir {}", place.path), fs.rmdir(place.folder, name));
    }
    let mut out = Done { what: format!("rm {}", place.path), ..Done::default() };
    files_below(device, &place.path).into_iter().for_each(|nid| out.drops(device, nid));
    out.error = fs.unlink(place.folder, name).err();
    out
}

fn link(device: &Device, rng: &mut SmallRng, place: &Place) -> Done {
    let files: Vec<(String, u64)> = device
        .nodes_of_its_ground()
        .into_iter()
        .filter(|(_, n)| n.kind == NodeKind::File)
        .map(|(p, n)| (p, n.nid))
        .collect();
    if files.is_empty() {
        return Done::default();
    }
    let (path, nid) = &files[rng.random_range(0..files.len())];
    let linked = device.fs().link(*nid, place.folder, place.name.as_bytes());
    done(format!("ln {path} {}", place.path), linked.map(drop))
}

fn rename(device: &Device, rng: &mut SmallRng, place: &Place) -> Done {
    let to = places(device, rng);
    let mode = match rng.random_range(0..6) {
        0 => RenameMode::Exchange,
        1 => RenameMode::NoReplace,
        _ => RenameMode::Replace,
    };
    let what = format!("mv {mode:?} {} {}", place.path, to.path);
    let mut out = Done { what, ..Done::default() };
    if mode == RenameMode::Replace {
        // A file that is renamed onto itself stays.
        let kept = files_below(device, &place.path);
        let going = files_below(device, &to.path);
        going.difference(&kept).for_each(|nid| out.drops(device, *nid));
    }
    let renamed = device.fs().rename(
        place.folder,
        place.name.as_bytes(),
        to.folder,
        to.name.as_bytes(),
        mode,
    );
    match renamed {
        Ok(()) => out,
        Err(e) => done(out.what, Err(e)),
    }
}
