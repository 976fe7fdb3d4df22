"""Holds unpacked layers against what independent readers say of their archives.

Reads a job on standard input: {"cases": [{"name", "archive", "layer"}], "first_id": N}. For each case
Python's tarfile lists the archive, the listing is applied, entry by entry, to an empty tree as the OCI
image specification says, and that tree is compared with the one on disk. GNU tar must list the same
names, types and sizes. Prints {name: [differences]}.
"""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile

KINDS = {"5": "dir", "2": "link", "6": "fifo"}


class Refused(Exception):
    pass


class Tree:
    """What a layer comes to: path -> [kind, mode, uid, gid, time, content or target, attributes]."""

    def __init__(self):
        self.nodes = {b"": ["dir", None, None, None, None, None, {}]}
        self.opaque = set()

    def clean(self, path):
        parts = []
        for part in path.split(b"/"):
            if part == b"..":
                if not parts and not path.startswith(b"/"):
                    raise Refused("leads out")
                parts = parts[:-1]
            elif part not in (b"", b"."):
                parts.append(part)
        return parts

    def parent(self, parts):
        """The real path of a directory, symbolic links resolved in this tree, made where missing."""
        here, todo, links = [], list(parts), 0
        while todo:
            part = todo.pop(0)
            if part == b"..":
                here = here[:-1]
                continue
            path = b"/".join(here + [part])
            node = self.nodes.get(path)
            if node is None:
                self.nodes[path] = ["dir", 0o755, 0, 0, None, None, {}]
            elif node[0] == "whiteout":
                self.nodes[path] = ["dir", 0o755, 0, 0, None, None, {}]
                self.opaque.add(path)
            elif node[0] == "link":
                links += 1
                if links > 40:
                    raise Refused("too many links")
                if node[5].startswith(b"/"):
                    here = []
                todo = [p for p in node[5].split(b"/") if p not in (b"", b".")] + todo
                continue
            elif node[0] != "dir":
                raise Refused("below a file")
            here.append(part)
        return here

    def remove(self, path):
        self.nodes.pop(path, None)
        self.opaque.discard(path)
        for known in [k for k in self.nodes if k.startswith(path + b"/")]:
            del self.nodes[known]
            self.opaque.discard(known)

    def put(self, parts, node):
        path = b"/".join(self.parent(parts[:-1]) + [parts[-1]])
        self.remove(path)
        self.nodes[path] = node

    def add(self, member, archive):
        raw = os.fsencode(member.name)
        if not raw:
            raise Refused("no name")
        parts = self.clean(raw)
        kind = "file" if member.isreg() else KINDS.get(member.type.decode("latin-1"), "?")
        attributes = {
            key[len("SCHILY.xattr."):]: os.fsencode(value).hex()
            for key, value in member.pax_headers.items()
            if key.startswith("SCHILY.xattr.user.") and not key.startswith("SCHILY.xattr.user.overlay.")
        }
        # The kernel takes the group's bits from an ACL.
        acl = "SCHILY.xattr.system.posix_acl_access" in member.pax_headers
        node = [kind, None if acl else member.mode & 0o7777, member.uid, member.gid, int(member.mtime // 1), None, attributes]
        if not parts:
            if kind != "dir":
                raise Refused("root is no directory")
            self.nodes[b""] = node
            return
        if parts[0].startswith(b".wh..wh.") and len(parts) > 1:
            return
        if any(part.startswith(b".wh.") for part in parts[:-1]):
            raise Refused("below a whiteout")
        if parts[-1].startswith(b".wh."):
            self.whiteout(parts, parts[-1][4:])
        elif member.ischr() or member.isblk():
            return
        elif kind == "dir":
            path = b"/".join(self.parent(parts[:-1]) + [parts[-1]])
            known = self.nodes.get(path)
            if known is None or known[0] != "dir":
                self.remove(path)
                if known is not None and known[0] == "whiteout":
                    self.opaque.add(path)
            self.nodes[path] = node
        elif member.islnk():
            self.hard_link(parts, os.fsencode(member.linkname))
        elif kind == "file":
            node[5] = hashlib.sha256(archive.extractfile(member).read()).hexdigest()
            self.put(parts, node)
        elif kind == "link":
            node[1] = 0o777
            node[5] = os.fsencode(member.linkname)
            node[6] = {}
            self.put(parts, node)
        elif kind == "fifo":
            node[6] = {}
            self.put(parts, node)
        else:
            raise Refused("type %r" % member.type)

    def hard_link(self, parts, target):
        target = self.clean(target)
        if not target:
            raise Refused("link to root")
        if target == parts:
            raise Refused("link to itself")
        for end in range(1, len(target)):
            if b"/".join(target[:end]) not in self.nodes:
                raise Refused("link to nothing")
        target = b"/".join(self.parent(target[:-1]) + [target[-1]])
        if target not in self.nodes or self.nodes[target][0] in ("dir", "whiteout"):
            raise Refused("link to no file")
        self.put(parts, self.nodes[target])

    def whiteout(self, parts, hidden):
        here = self.parent(parts[:-1])
        if hidden == b".wh..opq":
            self.opaque.add(b"/".join(here))
        elif hidden.startswith(b".wh."):
            return
        elif hidden in (b"", b".", b".."):
            raise Refused("whiteout of nothing")
        else:
            path = b"/".join(here + [hidden])
            known = self.nodes.get(path)
            if known is None:
                self.nodes[path] = ["whiteout", None, None, None, None, None, {}]
            elif known[0] == "dir":
                self.opaque.add(path)


def on_disk(root, first_id):
    nodes, opaque = {}, set()

    def look(path, name):
        info = os.lstat(path)
        kind, content, attributes = "other", None, {}
        if stat.S_ISDIR(info.st_mode):
            kind = "dir"
        elif stat.S_ISREG(info.st_mode):
            kind = "file"
            with open(path, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            kind, content = "link", os.readlink(path)
        elif stat.S_ISFIFO(info.st_mode):
            kind = "fifo"
        elif stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            kind = "whiteout"
        if kind in ("dir", "file"):
            for key in os.listxattr(path, follow_symlinks=False):
                if key == "user.overlay.opaque":
                    opaque.add(name)
                elif key.startswith("user."):
                    attributes[key] = os.getxattr(path, key, follow_symlinks=False).hex()
                elif key.startswith("trusted.overlay"):
                    attributes[key] = "!"
        nodes[name] = [kind, stat.S_IMODE(info.st_mode), info.st_uid - first_id,
                       info.st_gid - first_id, int(info.st_mtime_ns // 10**9), content, attributes]
        if kind == "dir":
            for below in os.listdir(path):
                look(*[(name + b"/" if name else b"") + below] * 2)

    # Names are relative: with the root's own before it the longest would be too long.
    os.chdir(root)
    look(b".", b"")
    return nodes, opaque


def compare(expected, found, opaque):
    wrong = []
    for path in sorted(set(expected.nodes) | set(found)):
        want, have = expected.nodes.get(path), found.get(path)
        if want is None or have is None:
            wrong.append("%r: expected %s, found %s" % (path, want and want[0], have and have[0]))
        elif want[0] == "whiteout" and have[0] == "whiteout":
            continue
        else:
            # None stands for what nobody has said.
            for place, (left, right) in enumerate(zip(want, have)):
                if left is not None and left != right:
                    wrong.append("%r: field %d is %r, not %r" % (path, place, right, left))
    if expected.opaque != opaque:
        wrong.append("opaque: expected %r, found %r" % (expected.opaque, opaque))
    return wrong


def gnu_listing(path):
    """(type, size, name) as GNU tar lists them."""
    command = ["tar", "--list", "--verbose", "--numeric-owner", "--full-time",
               "--quoting-style=literal", "--show-transformed-names", "--absolute-names", "-f", path]
    done = subprocess.run(command, capture_output=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]})
    if done.returncode != 0:
        return "GNU tar: " + done.stderr.decode("utf-8", "replace").strip()[:200]
    listed = []
    for line in done.stdout.split(b"\n"):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and len(fields[0]) >= 10:
            name = fields[5]
            for mark in (b" -> ", b" link to "):
                name = name.split(mark)[0]
            kind = chr(fields[0][0]).replace("C", "-")
            # What has no data may say a size and have none.
            size = fields[2].decode() if kind in "-cb" else "0"
            listed.append((kind, size, name.rstrip(b"/")))
    return listed


def python_listing(members):
    listed = []
    for member in members:
        kind = ("d" if member.isdir() else "l" if member.issym() else "h" if member.islnk() else
                "p" if member.isfifo() else "c" if member.ischr() else "b" if member.isblk() else "-")
        size = str(member.size) if kind == "-" else "0"
        if kind in "cb":
            size = "%d,%d" % (member.devmajor, member.devminor)
        listed.append((kind, size, os.fsencode(member.name).rstrip(b"/")))
    return listed


def judge(case, first_id):
    tree = Tree()
    try:
        with tarfile.open(case["archive"], "r:") as archive:
            members = archive.getmembers()
            for member in members:
                tree.add(member, archive)
    except Exception as error:  # tarfile fails in many ways; none of them is a reading.
        return ["tarfile: %s: %s" % (type(error).__name__, error)]
    wrong = compare(tree, *on_disk(case["layer"], first_id))
    names = [os.fsencode(member.name) for member in members]
    if any(b"\n" in name or b" " in name for name in names):
        return wrong  # One line per entry is what the other listing can be read by.
    gnu = gnu_listing(case["archive"])
    if isinstance(gnu, str):
        wrong.append(gnu)
    elif gnu != python_listing(members):
        wrong.append("GNU tar lists %r, tarfile %r" % (gnu[:6], python_listing(members)[:6]))
    return wrong


def snapshot(root):
    lines = []
    for directory, names, files in os.walk(root):
        for path in [directory] + [os.path.join(directory, name) for name in names + files]:
            info = os.lstat(path)
            content = b""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            attributes = [(key, os.getxattr(path, key, follow_symlinks=False))
                          for key in os.listxattr(path, follow_symlinks=False)]
            lines.append((path, info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns,
                          info.st_nlink, content, attributes))
    return sorted(lines)


def clear(path):
    for name in os.listdir(path):
        below = os.path.join(path, name)
        if os.path.isdir(below) and not os.path.islink(below):
            clear(below)
            os.rmdir(below)
        else:
            os.unlink(below)


def late(*_):
    raise TimeoutError()


def extract_bare(path, root):
    """Extracts as tarfile does without a filter; what fails is left out."""
    count = 0
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                archive.extract(member, root, numeric_owner=True, filter="fully_trusted")
                count += 1
            except Exception:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    return count


def control(job):
    """In a root of its own: /root to extract into, and planted trees beside it."""
    signal.signal(signal.SIGALRM, late)
    os.chroot(job["control"])
    os.chdir("/")
    said = {}
    planted = [job["canary"], "/canary"]
    for case in job["cases"]:
        for path in planted + ["/root"]:
            os.makedirs(path, exist_ok=True)
            clear(path)
        for path in planted:
            with open(path + "/secret", "w") as file:
                file.write("canary")
            os.chmod(path, 0o700)
            os.utime(path, (981158400, 981158400))
        before = [snapshot(path) for path in planted]
        try:
            count = extract_bare(case["archive"], "/root")
            word = "tarfile without a filter extracts %d entries" % count
        except Exception as error:
            word = "tarfile refuses it: %s" % type(error).__name__
        if [snapshot(path) for path in planted] != before:
            word = "tarfile without a filter changed the planted tree"
        said[case["name"]] = word
        for path in planted:
            os.chown(path, 0, 0)
            for key in os.listxattr(path):
                os.removexattr(path, key)
    return said


def main():
    sys.setrecursionlimit(20_000)
    job = json.load(sys.stdin)
    if "control" in job:
        print(json.dumps(control(job)))
    else:
        print(json.dumps({case["name"]: judge(case, job["first_id"]) for case in job["cases"]}))


main()
