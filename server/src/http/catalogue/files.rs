//! Codes about files in volumes and containers: what keeps one from being read, written or removed.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "files.path",
        422,
        "The path names no file",
        "It is longer than 4,095 bytes, holds a NUL or a name of more than 255 bytes, or ends with no name where one is needed.",
        "Give a path such as `/var/data/report.txt`.",
    ),
    known(
        "files.mode",
        422,
        "The mode is more than permission bits",
        "Permission bits, with set-user-id, set-group-id and sticky, are at most 7777 in octal digits.",
        "Give a mode such as `0644`, or none.",
    ),
    known(
        "files.not-folder",
        409,
        "It is not a folder",
        "The path, or something on the way to it, is a file and not a folder.",
        "List the folder above it to see what is there.",
    ),
    known(
        "files.folder",
        409,
        "It is a folder",
        "A file was to be put at a path where a folder is.",
        "Put it into the folder, under a name of its own, or remove the folder first.",
    ),
    known(
        "files.not-file",
        409,
        "It is no ordinary file",
        "Only ordinary files can be downloaded: this is a folder, a device, a pipe or a socket.",
        "Download a folder as an archive; of the others there is nothing to be had.",
    ),
    known(
        "files.exists",
        409,
        "Something of that name is there",
        "A folder was to be made where something is already.",
        "Choose another name, or remove what is there.",
    ),
    known(
        "files.in-use",
        409,
        "It is in use, or a mount",
        "A program holds the file, or something is mounted at the path, such as a volume.",
        "Look into the mounted volume itself, or try again when the program is done.",
    ),
    known(
        "files.refused",
        403,
        "The kernel does not let the container’s root do that",
        "What is done to files is done as the root of the container: the file system is read-only there, the file is protected, or a link on the way leads nowhere inside.",
        "Look at the folder’s mode and mounts, and at where links lead.",
    ),
    known(
        "files.kernel",
        403,
        "It is no file that is kept",
        "`/proc`, `/sys` and `/dev` of a container show the kernel and devices, not files.",
        "Run a program in the container (exec) to look at them.",
    ),
    known(
        "files.ended",
        503,
        "The container has just ended",
        "It ran when the request came, and does not any more.",
        "Try again: the files of a container that does not run can be had as well.",
    ),
    known(
        "files.upload-unknown",
        409,
        "There is no such upload",
        "It was put in its place already, given up, or nothing was added to it for a day.",
        "Upload the file from its beginning.",
    ),
    known(
        "files.too-many-uploads",
        507,
        "Too many uploads are open",
        "One person can have 64 uploads that are not put anywhere yet.",
        "End some of them, or wait: what nothing is added to for a day is given up.",
    ),
];
