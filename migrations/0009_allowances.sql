-- What all that runs for a person may use together, and how many containers they may have. A person
-- without a row has what the system's row (1) says; without that, nothing is bounded. In a row null is no
-- bound, and for containers the configuration's.

create table allowances (
    principal integer primary key references principals (id),
    cpu_millis integer,
    cpu_weight integer not null,
    memory_bytes integer,
    swap_bytes integer,
    pids integer,
    containers_max integer,
    changed_at integer not null
) strict;
