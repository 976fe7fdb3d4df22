-- While there is a row, nothing new is begun but by operators, and everybody is told why. At most one.

create table maintenance (
    id integer primary key check (id = 1),
    message text not null,
    begun_by integer not null references principals (id),
    since integer not null
) strict;
