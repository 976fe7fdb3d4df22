-- The key that signed a session's or token's secret; empty for the first one, whose tokens name none.

alter table sessions add column key_id text not null default '';
alter table tokens add column key_id text not null default '';
