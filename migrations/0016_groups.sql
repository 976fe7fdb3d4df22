-- Groups: a person's resources count to one. What a group may use together is its row in allowances. A
-- deleted group's principal stays, so that its id is never given again.

create table groups (
    id integer primary key references principals (id),
    name text not null unique,
    note text not null default '',
    created_at integer not null
) strict;

insert into groups (id, name, created_at) values (2, 'everybody', 0);

create index people_group on people (group_id);
