-- Principals and everything that people sign in with; operations, events, audit, idempotency keys.
--
-- Times are milliseconds since 1970 in UTC. A secret (password aside) is only ever stored as its
-- SHA-256. Released migrations are never edited: a change is a new file.

create table principals (
    id integer primary key,
    kind text not null check (kind in ('person', 'group', 'system')),
    created_at integer not null
) strict;

insert into principals (id, kind, created_at) values (1, 'system', 0), (2, 'group', 0);

create table people (
    id integer primary key references principals (id),
    name text not null unique,
    role text not null check (role in ('operator', 'user', 'auditor')),
    group_id integer not null default 2 references principals (id),
    password_hash text,
    password_changed_at integer,
    disabled_at integer,
    created_at integer not null
) strict;

-- The one-time secret that makes the first operator; at most one row, none once that is done.
create table setup (
    id integer primary key check (id = 1),
    secret_hash blob not null,
    created_at integer not null
) strict;

create table invitations (
    secret_hash blob primary key,
    person integer not null unique references people (id),
    created_by integer not null references principals (id),
    created_at integer not null,
    expires_at integer not null
) strict;

create table sessions (
    id text primary key,
    jti_hash blob not null unique,
    person integer not null references people (id),
    created_at integer not null,
    expires_at integer not null,
    seen_at integer not null,
    address text not null,
    agent text not null
) strict;

create index sessions_person on sessions (person);

create table tokens (
    id text primary key,
    jti_hash blob not null unique,
    person integer not null references people (id),
    name text not null,
    scope text not null check (scope in ('read', 'operate', 'manage')),
    created_at integer not null,
    expires_at integer not null,
    used_at integer,
    unique (person, name)
) strict;

-- Long work. Progress lives in memory; only start and end are on disk.
create table operations (
    id text primary key,
    owner integer not null references principals (id),
    kind text not null,
    subject_kind text not null,
    subject text not null,
    state text not null check (state in ('running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    progress text not null default '{}',
    result text,
    failure text,
    created_at integer not null,
    ended_at integer
) strict;

create index operations_owner on operations (owner, created_at desc);
create index operations_created on operations (created_at desc, id desc);

-- What has happened to objects, as their owners may read it.
create table events (
    id integer primary key autoincrement,
    at integer not null,
    owner integer not null references principals (id),
    kind text not null,
    subject_kind text not null,
    subject text not null,
    data text not null default '{}'
) strict;

create index events_owner on events (owner, id);

-- Who did what. No foreign keys: an audit row outlives everything that it names.
create table audit (
    id integer primary key autoincrement,
    at integer not null,
    actor integer,
    actor_name text not null,
    via text not null,
    action text not null,
    subject_kind text not null,
    subject text not null,
    owner integer,
    outcome text not null,
    address text not null,
    request_id text not null
) strict;

create table idempotency_keys (
    principal integer not null references principals (id),
    key text not null,
    fingerprint blob not null,
    result text not null,
    created_at integer not null,
    primary key (principal, key)
) strict, without rowid;

create index idempotency_keys_created on idempotency_keys (created_at);
