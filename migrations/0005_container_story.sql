-- What happened to one object, and who did what to it, without reading everybody's rows.

create index events_subject on events (subject, id);
create index audit_subject on audit (subject, id);
