-- Volumes: directories of people's that outlive containers. What is in one is the supervisor's to keep, under
-- the same id; here is whose it is, what it is called, and which containers have it.

create table volumes (
    id text primary key check (length(id) = 32),
    owner integer not null references principals (id),
    name text not null,
    -- 1 from the wish that it be gone until it is; nobody sees it then.
    removed integer not null default 0 check (removed in (0, 1)),
    created_at integer not null
) strict;

create unique index volumes_name on volumes (owner, name) where removed = 0;
create index volumes_by_name on volumes (name, id);

-- A container's volumes, in the order in which it was asked for them; a volume named here is never removed.
create table container_volumes (
    container text not null references containers (id) on delete cascade,
    position integer not null,
    volume text not null references volumes (id),
    target text not null,
    read_only integer not null check (read_only in (0, 1)),
    -- A part of the volume instead of the whole.
    sub_path text,
    primary key (container, position)
) strict, without rowid;

create index container_volumes_volume on container_volumes (volume);
