-- Images: who may see and use what. The content itself lies in the store (blobs, by digest) and with
-- the supervisor (unpacked layers, by the same digest); a row is written only when all of it is there.

create table images (
    id text primary key check (length(id) = 32),
    owner integer not null references principals (id),
    manifest_digest text not null,
    config_digest text not null,
    platform text not null,
    -- Sum of the layers as stored, and as unpacked.
    compressed_bytes integer not null,
    unpacked_bytes integer not null,
    -- The config as far as Berth uses and shows it (JSON).
    config text not null,
    source text not null check (source in ('pull', 'import')),
    created_at integer not null,
    unique (owner, manifest_digest)
) strict;

create index images_created on images (created_at desc, id desc);

-- What an image is called: `value` is a tag, or a digest that it was pulled by.
create table image_references (
    owner integer not null references principals (id),
    name text not null,
    kind text not null check (kind in ('tag', 'digest')),
    value text not null,
    image text not null references images (id) on delete cascade,
    primary key (owner, name, kind, value)
) strict, without rowid;

create index image_references_image on image_references (image);

create table image_layers (
    image text not null references images (id) on delete cascade,
    position integer not null,
    blob text not null,
    diff_id text not null,
    compression text not null check (compression in ('none', 'gzip', 'zstd')),
    compressed_bytes integer not null,
    unpacked_bytes integer not null,
    primary key (image, position)
) strict, without rowid;

create index image_layers_blob on image_layers (blob);

-- Where the bytes of a stored layer have come from, whole and verified. Only such a repository can
-- confirm, with somebody's own credentials, that they may have it without downloading it again.
create table blob_origins (
    blob text not null,
    registry text not null,
    repository text not null,
    primary key (blob, registry, repository)
) strict, without rowid;

create table registry_credentials (
    owner integer not null references principals (id),
    registry text not null,
    username text not null,
    -- Sealed with a key of the server's; never shown again.
    sealed blob not null,
    created_at integer not null,
    primary key (owner, registry)
) strict, without rowid;
