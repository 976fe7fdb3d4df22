-- How many programs were run beside a container's first one: the newest one's number.

alter table containers add column execs integer not null default 0;
