-- Who is in which group besides those who count to it, who manages one, and what is shared with whom.

create table group_members (
    group_id integer not null references groups (id) on delete cascade,
    person integer not null references people (id),
    role text not null check (role in ('member', 'manager')),
    added_at integer not null,
    primary key (group_id, person)
) strict, without rowid;

create index group_members_person on group_members (person);

-- Everybody who is in a group: by counting to it, or as a member. Whoever is both is there twice.
create view memberships as
    select group_id, id as person from people
    union all
    select group_id, person from group_members;

-- What an owner has given others of an object. Its state goes with each grant; what else does is a column.
create table grants (
    object_kind text not null check (object_kind in ('container', 'volume')),
    object text not null,
    grantee_kind text not null check (grantee_kind in ('person', 'group')),
    -- A person's as it was written. A name that nobody had then is kept, so that whoever gives it learns
    -- nothing; it leads nowhere, also when somebody gets the name later. A group's is its id: groups are renamed.
    grantee_name text not null,
    grantee integer references principals (id),
    logs integer not null default 0 check (logs in (0, 1)),
    terminal integer not null default 0 check (terminal in (0, 1)),
    files integer not null default 0 check (files in (0, 1)),
    manage integer not null default 0 check (manage in (0, 1)),
    -- Of a volume: whether it may be written to.
    write integer not null default 0 check (write in (0, 1)),
    given_by integer not null references principals (id),
    given_at integer not null,
    primary key (object_kind, object, grantee_kind, grantee_name)
) strict;

create index grants_grantee on grants (grantee_kind, grantee, object_kind);

-- The same by person, a group's for each who is in it.
create view granted as
    select object_kind, object, grantee as person, logs, terminal, files, manage, write
    from grants where grantee_kind = 'person' and grantee is not null
    union all
    select g.object_kind, g.object, m.person, g.logs, g.terminal, g.files, g.manage, g.write
    from grants g join memberships m on m.group_id = g.grantee where g.grantee_kind = 'group';

create trigger containers_grants after delete on containers begin
    delete from grants where object_kind = 'container' and object = old.id;
end;

create trigger volumes_grants after delete on volumes begin
    delete from grants where object_kind = 'volume' and object = old.id;
end;

create trigger groups_grants after delete on groups begin
    delete from grants where grantee_kind = 'group' and grantee = old.id;
end;
