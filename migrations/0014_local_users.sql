-- Which user of this host somebody is, on the socket for local users; a name, since user ids of users
-- who are gone are given again.
alter table people add column local_user text;

create unique index people_local_user on people (local_user) where local_user is not null;
