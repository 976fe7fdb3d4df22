//! Small disks of a test's own, to be filled to the last block or the last file.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::instance::run;

/// Where a test wants a small disk, below the instance's directory, and how small.
#[derive(Debug, Clone, Copy)]
pub struct SmallDisk {
    /// `data/db`, `run`, …
    pub place: &'static str,
    /// Its size.
    pub mib: u64,
    /// Files that it holds at most.
    pub files: u64,
    /// tmpfs in place of ext4 in a file.
    pub memory: bool,
}

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Every block.
    Blocks,
    /// Every inode.
    Files,
}

impl SmallDisk {
    /// Mounts it; `scratch` is where the file behind it lies.
    pub(crate) fn mount(&self, top: &Path, scratch: &Path) -> PathBuf {
        let path = top.join(self.place);
        fs::create_dir_all(&path).expect("make a place to mount on");
        let target = path.to_str().expect("a path of ours");
        if self.memory {
            let options = format!("size={}m,nr_inodes={},mode=711", self.mib, self.files);
            must("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", target]);
            return path;
        }
        let image = scratch.join(format!("{}.ext4", self.place.replace('/', "-")));
        let file = File::create(&image).expect("make a disk's file");
        file.set_len(self.mib << 20).expect("give it a size");
        let image = image.to_str().expect("a path of ours");
        must("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", &self.files.to_string(), image]);
        must("mount", &["-o", "loop,errors=remount-ro", image, target]);
        fs::remove_dir(path.join("lost+found")).expect("mke2fs makes one");
        path
    }
}

/// Takes a mounted disk away, whoever is still on it.
pub(crate) fn unmount(path: &Path) {
    run("umount", &["--lazy", &path.display().to_string()]);
}

/// Takes people's own file systems away that an instance has mounted in its run directory.
pub fn unmount_disks(run_dir: &Path) {
    for place in fs::read_dir(run_dir.join("disks")).into_iter().flatten().flatten() {
        unmount(&place.path());
    }
}

/// Uses a disk up, or what has come free since; it goes with [`free`].
///
/// # Panics
/// When the disk is not full afterwards: the fault has not struck.
pub fn fill(disk: &Path, room: Room) {
    let fillers = disk.join(".fillers");
    if !fillers.exists() {
        fs::create_dir(&fillers).expect("there is room for a directory");
    }
    match room {
        Room::Blocks => {
            let file = File::options().create(true).append(true).open(fillers.join("blocks"));
            let mut file = file.expect("there is room for a file");
            let bytes = vec![7; 1 << 20];
            let mut size = bytes.len();
            while size > 0 {
                // Synced, since ext4 gives blocks when it writes.
                match file.write(&bytes[..size]).and_then(|_| file.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                    Err(error) => panic!("fill a disk: {error}"),
                }
            }
        }
        Room::Files => {
            let first = fs::read_dir(&fillers).expect("just made").count();
            for number in first.. {
                match File::create(fillers.join(number.to_string())) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("use up the files: {error}"),
                }
            }
        }
    }
    assert!(is_full(disk), "{} has room still", disk.display());
}

/// Has the file system find itself damaged, so that the kernel makes it read-only.
pub fn make_read_only(disk: &Path) {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(disk).expect("it is mounted").dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let block = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).expect("a block device");
    let name = block.file_name().expect("its name").to_string_lossy().into_owned();
    fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test's fault").expect("ext4");
    let refused = File::create(disk.join(".probe")).err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::ReadOnlyFilesystem), "it takes writes still");
}

/// Whether nothing of one block can be made and kept now.
pub fn is_full(disk: &Path) -> bool {
    let path = disk.join(".probe");
    let made = File::create(&path)
        .and_then(|mut file| file.write_all(&[1; 4096]).and_then(|()| file.sync_data()));
    drop(fs::remove_file(path));
    made.is_err_and(|error| error.kind() == ErrorKind::StorageFull)
}

/// Gives the room back.
pub fn free(disk: &Path) {
    fs::remove_dir_all(disk.join(".fillers")).expect("remove the fillers");
}

fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
