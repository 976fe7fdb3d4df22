-- Data sets in containers, by the names of the configuration, in the order in which they were asked for. One that is
-- configured no more stays named: what has it does not start.

create table container_data_sets (
    container text not null references containers (id) on delete cascade,
    position integer not null,
    name text not null,
    target text not null,
    primary key (container, position)
) strict, without rowid;

create index container_data_sets_name on container_data_sets (name);

-- Images can be shared, too: whoever has one shared with them may look at all of it, and keep it as one of their own.
drop view granted;
drop trigger containers_grants;
drop trigger volumes_grants;
drop trigger groups_grants;

create table grants_next (
    object_kind text not null check (object_kind in ('container', 'volume', 'image')),
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

insert into grants_next select object_kind, object, grantee_kind, grantee_name, grantee, logs, terminal, files, manage,
    write, given_by, given_at from grants;
drop table grants;
alter table grants_next rename to grants;
create index grants_grantee on grants (grantee_kind, grantee, object_kind);

create view granted as
    select object_kind, object, grantee as person, logs, terminal, files, manage, write
    from grants where grantee_kind = 'person' and grantee is not null
    union all
    select g.object_kind, g.object, m.person, g.logs, g.terminal, g.files, g.manage, g.write
    from grants g join memberships m on m.group_id = g.grantee where g.grantee_kind = 'group'
    union all
    select l.object_kind, l.object, l.operator, 1, 0, 1, 0, 0
    from looks l join people p on p.id = l.operator and p.role = 'operator'
    where l.ends_at > cast(unixepoch('subsec') * 1000 as integer);

create trigger containers_grants after delete on containers begin
    delete from grants where object_kind = 'container' and object = old.id;
end;

create trigger volumes_grants after delete on volumes begin
    delete from grants where object_kind = 'volume' and object = old.id;
end;

create trigger images_grants after delete on images begin
    delete from grants where object_kind = 'image' and object = old.id;
end;

create trigger groups_grants after delete on groups begin
    delete from grants where grantee_kind = 'group' and grantee = old.id;
end;

-- Whose a volume is to be, while it is given to somebody else; then it is its owner's still, and nobody uses it.
alter table volumes add column heir integer references principals (id);
