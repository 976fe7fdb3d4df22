-- What people have asked operators for: more of one limit, why, and until when; what was decided. What is granted for a
-- time stands here alone and holds on top of the person's allowance until then; for good it is in that. settled_at is
-- when the kernel was made to hold what holds without it.
create table asks (
    id integer primary key,
    person integer not null references principals (id),
    bound text not null,
    wanted integer not null,
    until integer,
    reason text not null,
    asked_at integer not null,
    state text not null check (state in ('open', 'withdrawn', 'declined', 'approved', 'ended')),
    decided_by text,
    decided_at integer,
    answer text not null default '',
    granted integer,
    ends_at integer,
    settled_at integer
) strict;

create unique index asks_open on asks (person, bound) where state = 'open';
create index asks_person on asks (person, id);
create index asks_end on asks (ends_at) where ends_at is not null and settled_at is null;

create trigger people_asks after delete on people begin
    delete from asks where person = old.id;
end;

-- What people have used, by quarter of an hour of the last days: sums as in usage_days, without images.
create table usage_quarters (
    person integer not null references principals (id),
    -- Quarters of an hour since 1970.
    quarter integer not null,
    cpu_usec integer not null default 0,
    memory_kib_secs integer not null default 0,
    container_secs integer not null default 0,
    primary key (person, quarter)
) strict, without rowid;

create index usage_quarters_quarter on usage_quarters (quarter);
