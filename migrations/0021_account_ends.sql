-- When an account ends by itself; and since when what follows from that has been done: its ways in are ended.
alter table people add column expires_at integer;
alter table people add column ended_at integer;

create index people_expires on people (expires_at) where expires_at is not null;

-- Taking somebody off the machine: what was asked for, and how far it is. The account may be gone when it is done: its
-- name stays here, and its id, which is never given again, among the principals.
create table offboardings (
    person integer primary key references principals (id),
    name text not null,
    things text not null check (things in ('keep', 'delete')),
    operation text not null,
    asked_by integer not null references principals (id),
    asked_by_name text not null,
    begun_at integer not null,
    ended_at integer
) strict;

create index offboardings_name on offboardings (name);

create table offboarding_steps (
    person integer not null references offboardings (person) on delete cascade,
    position integer not null,
    act text not null check (act in ('stop', 'remove')),
    kind text not null check (kind in ('container', 'volume', 'image')),
    object text not null,
    name text not null,
    done_at integer,
    said text not null default '',
    primary key (person, position)
) strict, without rowid;
