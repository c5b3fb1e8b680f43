//! Who watches the drive: the marks of inotify and fanotify of all programs that can be seen from
//! here, as the kernel lists them in /proc.
//!
//! As an ordinary user those are the user's own programs, which are the ones that may look into a
//! mount without `--allow-other`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// What is watched of one file system.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// The whole file system (fanotify).
    all: bool,
    inodes: HashSet<u64>,
}

impl Watched {
    pub fn is_empty(&self) -> bool {
        !self.all && self.inodes.is_empty()
    }

    pub fn has(&self, inode: u64) -> bool {
        self.all || self.inodes.contains(&inode)
    }

    /// Takes in the marks that one file of /proc/PID/fdinfo lists.
    fn note(&mut self, text: &str, device: &str) {
        for line in text.lines() {
            let mut words = line.split(' ');
            if !matches!(words.next(), Some("inotify" | "fanotify")) {
                continue;
            }
            let (mut inode, mut here) = (None, false);
            for word in words {
                match word.split_once(':') {
                    Some(("ino", hex)) => inode = u64::from_str_radix(hex, 16).ok(),
                    Some(("sdev", hex)) => here = hex == device,
                    _ => {}
                }
            }
            match inode {
                Some(inode) if here => {
                    self.inodes.insert(inode);
                }
                None if here => self.all = true,
                _ => {}
            }
        }
    }
}

/// A device number as mountinfo has it ("0:45") in the words of fdinfo.
pub(super) fn kernel_device(device: &str) -> Option<String> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some(format!("{:x}", major << 20 | minor))
}

/// Looks at all programs; `device` in the words of fdinfo.
pub(super) fn look(device: &str) -> io::Result<Watched> {
    let mut watched = Watched::default();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if process.file_name().as_encoded_bytes()[0].is_ascii_digit() {
            // One that has ended, or that is not ours to look at, has nothing to tell.
            let _ = look_at(&process.path(), device, &mut watched);
        }
    }
    Ok(watched)
}

fn look_at(process: &Path, device: &str, watched: &mut Watched) -> io::Result<()> {
    for open in fs::read_dir(process.join("fd"))? {
        let open = open?;
        let Ok(target) = fs::read_link(open.path()) else { continue };
        let name = target.as_os_str().as_encoded_bytes();
        if name != b"anon_inode:inotify" && name != b"anon_inode:[fanotify]" {
            continue;
        }
        if let Ok(text) = fs::read_to_string(process.join("fdinfo").join(open.file_name())) {
            watched.note(&text, device);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_this_file_system_count() {
        let mut watched = Watched::default();
        watched.note(
            "pos:\t0\nflags:\t02004000\ninotify wd:2 ino:1f sdev:2d mask:fce ignored_mask:0 \
             fhandle-bytes:c fhandle-type:81 f_handle:1f\ninotify wd:1 ino:7 sdev:2e mask:2\n\
             fanotify flags:0 event-flags:8000\nfanotify ino:ab sdev:2d mflags:0 mask:38\n",
            "2d",
        );
        assert!(watched.has(0x1f) && watched.has(0xab) && !watched.has(7));
        watched.note("fanotify sdev:2e mflags:0 mask:100\n", "2d");
        assert!(!watched.has(7));
        watched.note("fanotify sdev:2d mflags:0 mask:100\n", "2d");
        assert!(watched.has(7));
    }

    #[test]
    fn device_numbers_are_those_of_the_kernel() {
        assert_eq!(kernel_device("0:45").as_deref(), Some("2d"));
        assert_eq!(kernel_device("8:1").as_deref(), Some("800001"));
        assert_eq!(kernel_device("nonsense"), None);
    }

    #[test]
    fn programs_can_be_looked_at() {
        assert!(look("none").expect("/proc is there").is_empty());
    }
}
