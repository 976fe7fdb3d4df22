-- What was found when stored layers were last compared with the bytes that they came from. A layer without a row was
-- not looked at since it came.

create table layer_checks (
    blob text primary key,
    checked_at integer not null,
    -- `archive_damaged`: the bytes themselves are not what their digest says, so that nothing is known of the layer.
    state text not null check (state in ('whole', 'damaged', 'archive_damaged')),
    differences integer not null default 0,
    -- The first of them (JSON).
    shown text not null default '[]'
) strict, without rowid;
