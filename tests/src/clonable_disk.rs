//! Disks of a test's own: an ext4 file system on a loop device, of any size, and copies of it as it was
//! at one instant.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An ext4 file system in a file on a btrfs, where a file can be cloned in an instant (ioctl_ficlone(2)).
#[derive(Debug)]
pub struct ClonableDisk {
    dir: PathBuf,
    /// Where the file system is mounted.
    pub mounted: PathBuf,
}

impl ClonableDisk {
    /// Makes and mounts one of `bytes` in `dir`, which must not exist.
    pub fn new(dir: &Path, bytes: u64) -> Self {
        let this = Self { dir: dir.to_owned(), mounted: dir.join("mounted") };
        let outer = dir.join("outer.img");
        for folder in [dir.join("outer"), this.mounted.clone()] {
            fs::create_dir_all(folder).expect("make a mount point");
        }
        // Clones share what they have in common.
        sparse(&outer, bytes * 6);
        run("mkfs.btrfs", &["-q", &text(&outer)]);
        run("mount", &["-o", "loop", &text(&outer), &text(&dir.join("outer"))]);
        let inner = this.file("disk");
        sparse(&inner, bytes);
        run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0", &text(&inner)]);
        this.mount("disk");
        this
    }

    /// Keeps the disk as it is now: what was not written to it yet is not in there.
    pub fn keep(&self, name: &str) {
        let (from, to) = (self.file("disk"), self.file(name));
        run("cp", &["--reflink=always", &text(&from), &text(&to)]);
    }

    /// Mounts one that was kept in place of the one before, which is forgotten.
    pub fn swap(&self, name: &str) {
        self.unmount();
        self.mount(name);
    }

    /// Removes one that was kept.
    pub fn forget(&self, name: &str) {
        fs::remove_file(self.file(name)).expect("remove a disk");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join("outer").join(format!("{name}.img"))
    }

    fn mount(&self, name: &str) {
        run("mount", &["-o", "loop", &text(&self.file(name)), &text(&self.mounted)]);
    }

    fn unmount(&self) {
        run("umount", &[&text(&self.mounted)]);
    }
}

impl Drop for ClonableDisk {
    fn drop(&mut self) {
        for path in [self.mounted.clone(), self.dir.join("outer")] {
            // Lazily: a test that fails may leave a file open there.
            drop(Command::new("umount").arg("--lazy").arg(path).status());
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn sparse(path: &Path, bytes: u64) {
    let file = fs::File::create(path).expect("make an image file");
    file.set_len(bytes).expect("give it its size");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("start a program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
