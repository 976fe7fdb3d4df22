-- What somebody may keep on disk, in bytes: what their containers have written, volumes, uploads. Null is no bound.
alter table allowances add column data_bytes integer;
