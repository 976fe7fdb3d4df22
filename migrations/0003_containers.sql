-- Containers: what people asked for. What the kernel does is read from the supervisor, not stored;
-- `last_exit` is a copy of the supervisor's record, kept for when that is gone.
--
-- A create is one row here (with its layers, audit row, event and idempotency key in the same
-- commit); a start is one update of `intent` and `run`.

create table containers (
    id text primary key check (length(id) = 32),
    owner integer not null references principals (id),
    name text not null,
    image_reference text not null,
    -- Null until the image is here.
    image_id text,
    -- The request as it came, checked (JSON).
    request text not null,
    -- Request and image merged, checked again (JSON); null until the image is here.
    spec text,
    cpu_millis integer not null,
    cpu_weight integer not null,
    memory_bytes integer not null,
    swap_bytes integer not null,
    pids integer not null,
    -- 0 while the kernel may still hold the limits before.
    limits_applied integer not null default 1,
    intent text not null check (intent in ('pulling', 'created', 'running', 'stopped', 'removed')),
    -- The newest start's number; the supervisor's records carry it.
    run integer not null default 0,
    -- The pull that it waits for, and whether to start it then.
    operation text,
    start_when_pulled integer not null default 0,
    restart_policy text not null check (restart_policy in ('no', 'on-failure', 'always', 'unless-stopped')),
    restart_attempts_max integer,
    restart_attempts integer not null default 0,
    next_attempt_at integer,
    -- Who asked for the end of the newest run, and how; null when nobody did.
    stopped_by integer references principals (id),
    stop_kind text check (stop_kind in ('stop', 'kill', 'remove', 'restart')),
    stop_deadline_at integer,
    last_exit text,
    -- Why the image did not come.
    failure text,
    created_at integer not null,
    started_at integer,
    unique (owner, name)
) strict;

create index containers_created on containers (created_at desc, id desc);

-- The layers that a container stands on, lowest first; a layer named here is never removed.
create table container_layers (
    container text not null references containers (id) on delete cascade,
    position integer not null,
    layer text not null,
    primary key (container, position)
) strict, without rowid;

create index container_layers_layer on container_layers (layer);

-- The boot in which the server last looked (one row): `always` starts what was stopped before it.
create table boots (
    id integer primary key check (id = 1),
    boot_id text not null
) strict;
