#!/usr/bin/env python3
"""Images of known content: `make NAME` writes a docker-save archive to standard output, `check DATA TOLD`
names every file of the told images that is not as it was made."""
import hashlib
import io
import json
import pathlib
import sys
import tarfile

FILES = 3
BYTES = 30_000


def content(name, number):
    digest = hashlib.sha256(f"{name} {number}".encode()).digest()
    return (digest * (BYTES // len(digest) + 1))[:BYTES]


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def layer(name):
    return archive({f"files/{number}": content(name, number) for number in range(FILES)})


def make(name):
    bytes_ = layer(name)
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(bytes_).hexdigest()]},
    }).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
    files = {"layer.tar": bytes_, "config.json": config, "manifest.json": manifest.encode()}
    sys.stdout.buffer.write(archive(files))


def check(data, told):
    lines = pathlib.Path(told).read_text().splitlines()
    for name in (line.removeprefix("image ") for line in lines if line.startswith("image ")):
        stored = pathlib.Path(data) / "layers/sha256" / hashlib.sha256(layer(name)).hexdigest()
        for number in range(FILES):
            found = list(stored.glob(f"files/{number}")) + list(stored.glob(f"*/files/{number}"))
            if [path.read_bytes() for path in found] != [content(name, number)]:
                print(name, number)


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    check(sys.argv[2], sys.argv[3])
