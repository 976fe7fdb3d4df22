-- The audit as a chain: each row holds the hash of the row before it, and its own over that and its fields, so
-- that none is changed, taken out, put in or moved unnoticed. Rows from before are chained by the first start
-- that finds them (server/src/inventory/audit/begin.rs). `times`: as often was the same done within a minute.

alter table audit add column times integer not null default 1;
alter table audit add column prev blob;
alter table audit add column hash blob;

-- Ranges of rows that the pruning has dropped; two never touch.
create table audit_gaps (
    first integer primary key,
    last integer not null check (last >= first)
) strict;

-- Against mistakes, not against whoever holds the file: those may drop the triggers, and the chain shows it.
create trigger audit_is_appended_to before insert on audit
when new.id <= (select max(id) from audit)
begin
    select raise(abort, 'the audit is only appended to');
end;

create trigger audit_is_not_changed before update on audit
when old.hash is not null
begin
    select raise(abort, 'a row of the audit is never changed');
end;

create trigger audit_is_not_cut before delete on audit
when old.id > coalesce(
    (select last from audit_gaps where first <= old.id order by first desc limit 1), 0)
begin
    select raise(abort, 'a row of the audit is dropped by the pruning only');
end;
