-- Ports of the host that lead to containers: a container's from its making to its removal, whether it runs or
-- not. Each leads to one.

create table port_leases (
    protocol text not null check (protocol in ('tcp', 'udp')),
    host_port integer not null check (host_port between 1 and 65535),
    container text not null references containers (id) on delete cascade,
    container_port integer not null check (container_port between 1 and 65535),
    primary key (protocol, host_port)
) strict, without rowid;

create index port_leases_container on port_leases (container);
