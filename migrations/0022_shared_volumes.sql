-- Volumes in containers of other people than their owner: such a container does not keep a volume, so that its owner
-- can remove it. What names one that is gone does not start. So there is no reference any more.

create table container_volumes_next (
    container text not null references containers (id) on delete cascade,
    position integer not null,
    -- Of the container's owner's own, one that is there.
    volume text not null,
    target text not null,
    read_only integer not null check (read_only in (0, 1)),
    -- A part of the volume instead of the whole.
    sub_path text,
    primary key (container, position)
) strict, without rowid;

insert into container_volumes_next (container, position, volume, target, read_only, sub_path)
    select container, position, volume, target, read_only, sub_path from container_volumes;

drop table container_volumes;
alter table container_volumes_next rename to container_volumes;
create index container_volumes_volume on container_volumes (volume);
