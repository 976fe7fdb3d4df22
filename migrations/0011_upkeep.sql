-- While there is a row, nothing new is begun but by operators, and everybody is told why. At most one.

create table maintenance (
    id integer primary key check (id = 1),
    message text not null,
    begun_by integer not null references principals (id),
    since integer not null
) strict;

-- When the last container of an image went: since then nothing needs it. Null while none has gone.
alter table images add column last_needed_at integer;

create trigger containers_image_needed after delete on containers when old.image_id is not null
begin
    update images set last_needed_at = cast(unixepoch('subsec') * 1000 as integer) where id = old.image_id;
end;
