-- What people have used, a row for each person and day (UTC) on which they used anything: sums, so that the days of a
-- month can be added up.
create table usage_days (
    person integer not null references principals (id),
    -- Days since 1970-01-01.
    day integer not null,
    -- Microseconds of processor time.
    cpu_usec integer not null default 0,
    -- KiB of memory times seconds.
    memory_kib_secs integer not null default 0,
    -- KiB of images, stored and unpacked, times seconds.
    image_kib_secs integer not null default 0,
    -- Seconds times running containers.
    container_secs integer not null default 0,
    primary key (person, day)
) strict, without rowid;

create index usage_days_day on usage_days (day);

-- How far the kernel's counter of somebody's processor time was when it was last added up, and in which boot.
create table usage_counters (
    person integer primary key references principals (id),
    boot_id text not null,
    cpu_usec integer not null
) strict;
