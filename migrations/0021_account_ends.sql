-- When an account ends by itself; and since when what follows from that has been done: its ways in are ended.
alter table people add column expires_at integer;
alter table people add column ended_at integer;

create index people_expires on people (expires_at) where expires_at is not null;
