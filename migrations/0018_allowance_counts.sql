-- Ports of the host that somebody's containers may have together, and images that somebody may hold: how many,
-- and how many bytes of layers, stored and unpacked. Null is what the configuration says, or no bound.
alter table allowances add column ports_max integer;
alter table allowances add column images_max integer;
alter table allowances add column images_bytes integer;
