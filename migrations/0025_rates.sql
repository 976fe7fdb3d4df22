-- What somebody's containers may move together: shares and rates of the disk, rates of the network, in bytes per second. Null is no bound.
alter table allowances add column io_weight integer;
alter table allowances add column io_read_bytes_per_sec integer;
alter table allowances add column io_write_bytes_per_sec integer;
alter table allowances add column net_bytes_per_sec integer;
