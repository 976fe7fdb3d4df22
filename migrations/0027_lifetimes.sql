-- How long containers may run, and how long they run when nobody says, in seconds: of everybody, of a person, of a
-- group. Null is no bound, or no end.
alter table allowances add column lifetime_secs integer;
alter table allowances add column lifetime_default_secs integer;
-- How long nothing may be seen of a container's use until it is stopped.
alter table allowances add column idle_secs integer;

-- What was asked for when it was made (seconds; null is what is usual), and of the newest run that somebody asked for:
-- when it began, when it is stopped, whether that was told as near. Why a rule has stopped it (JSON).
alter table containers add column lifetime_secs integer;
alter table containers add column life_began_at integer;
alter table containers add column ends_at integer;
alter table containers add column end_told integer not null default 0;
alter table containers add column stop_why text;

create index containers_end on containers (ends_at) where ends_at is not null;
