//! Disks that lose power. Each server's is an image in a file, mounted through a loop device: what the server has synced is
//! in the file, what it has only written is in the kernel's memory. So a copy of the file is what a power cut leaves.
//!
//! Mounting takes root. Where it is refused, data is in plain folders, and no power is cut; one disk is of memory then,
//! if at least that may be mounted, for a disk must be small to fill up.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The server whose disk fills up.
const FILLED: usize = 2;
/// Bytes of a disk. fjall lays files out ahead.
const SIZE: u64 = 256 << 20;
/// As little as possible of what is not synced shall get into the image: the kernel's own writes come later than any power cut.
const MOUNT_OPTIONS: &str = "loop,noatime,commit=300";

/// Where the servers' data is.
pub(super) struct Disks {
    folder: PathBuf,
    servers: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All are images.
    Images,
    /// The one that fills up is of memory.
    Memory,
    /// None is mounted.
    Folders,
}

impl Disks {
    /// Makes disks for so many servers, as good as they can be had here.
    pub(super) fn mount(folder: &Path, servers: usize) -> Disks {
        let mut disks = Disks {
            folder: folder.to_owned(),
            servers,
            kind: Kind::Images,
        };
        if (0..servers).all(|server| disks.make(server)) {
            return disks;
        }
        disks.unmount();
        let size = format!("size={SIZE}");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"].map(OsStr::new);
        let is_mounted = done(
            "mount",
            arguments.into_iter().chain([disks.of(FILLED).as_os_str()]),
        );
        disks.kind = if is_mounted { Kind::Memory } else { Kind::Folders };
        eprintln!("torture: no images can be mounted here, so no power is cut");
        if !is_mounted {
            eprintln!("torture: no disk of memory either, so none fills up");
        }
        disks
    }

    /// Where a server's disk is mounted.
    pub(super) fn of(&self, server: usize) -> PathBuf {
        self.folder.join(format!("s{server}"))
    }

    /// Whether disks can lose power.
    pub(super) fn lose_power(&self) -> bool {
        self.kind == Kind::Images
    }

    /// Puts what a power cut leaves in the place of a server's disk. Its process is gone.
    ///
    /// # Errors
    /// The image can't be copied or mounted again.
    pub(super) fn cut_power(&self, server: usize) -> Result<(), String> {
        let (image, left) = (self.image(server), self.folder.join(format!("s{server}.left")));
        // Before anything else: unmounting would sync.
        let is_done = done(
            "cp",
            [OsStr::new("--sparse=always"), image.as_os_str(), left.as_os_str()],
        ) && done("umount", [self.of(server)])
            && fs::rename(&left, &image).is_ok()
            && self.mount_image(server);
        match is_done {
            true => Ok(()),
            false => Err(format!("{} can't be cut off from power", image.display())),
        }
    }

    /// Fills the small disk; gives whose it is, or `None` if there is none.
    pub(super) fn fill(&self) -> Option<usize> {
        if self.kind == Kind::Folders {
            return None;
        }
        let mut filler = fs::File::create(self.filler()).ok()?;
        let zeros = vec![0; 1 << 16];
        while filler.write_all(&zeros).is_ok() {}
        Some(FILLED)
    }

    /// Makes room on the small disk again.
    pub(super) fn empty(&self) {
        // It may not be there.
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.of(FILLED).join("filler")
    }

    fn image(&self, server: usize) -> PathBuf {
        self.folder.join(format!("s{server}.img"))
    }

    fn make(&self, server: usize) -> bool {
        let image = self.image(server);
        let is_there = fs::create_dir_all(self.of(server)).is_ok()
            && fs::File::create(&image).is_ok_and(|file| file.set_len(SIZE).is_ok());
        is_there
            && done(
                "mkfs.ext4",
                [OsStr::new("-q"), OsStr::new("-F"), image.as_os_str()],
            )
            && self.mount_image(server)
    }

    fn mount_image(&self, server: usize) -> bool {
        let (image, place) = (self.image(server), self.of(server));
        done(
            "mount",
            [
                OsStr::new("-o"),
                OsStr::new(MOUNT_OPTIONS),
                image.as_os_str(),
                place.as_os_str(),
            ],
        )
    }

    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for place in (0..self.servers).map(|server| self.of(server)) {
            if mounts.contains(&format!(" {} ", place.display())) {
                done("umount", [place]);
            }
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if self.kind == Kind::Memory {
            // What it held is kept with the rest.
            let kept = self.folder.join(format!("s{FILLED}-kept"));
            done(
                "cp",
                [OsStr::new("-r"), self.of(FILLED).as_os_str(), kept.as_os_str()],
            );
        }
        self.unmount();
    }
}

/// Whether a program did what it was asked for. Why not is of no use to anyone: it is missing, or it may not.
fn done<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
