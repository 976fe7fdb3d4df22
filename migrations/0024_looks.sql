-- What operators have looked into that is somebody else's: why, and until when. What has ended stays to be read.
create table looks (
    id integer primary key,
    object_kind text not null check (object_kind in ('container', 'volume')),
    object text not null,
    operator integer not null references principals (id),
    -- Their name; the account may be gone.
    operator_name text not null,
    reason text not null,
    began_at integer not null,
    ends_at integer not null
) strict;

create index looks_object on looks (object_kind, object, began_at);
create index looks_end on looks (ends_at);

create trigger containers_looks after delete on containers begin
    delete from looks where object_kind = 'container' and object = old.id;
end;

create trigger volumes_looks after delete on volumes begin
    delete from looks where object_kind = 'volume' and object = old.id;
end;

-- While it goes on, a look is as if its owner had shared the object with the operator, to be read.
drop view granted;
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
