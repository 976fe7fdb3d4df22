-- Second factors: a shared secret (RFC 6238), sealed; and recovery codes, each good once.

create table second_factors (
    person integer primary key references people (id) on delete cascade,
    sealed blob not null,
    -- Null until its owner has shown a code of it; until then it is asked of nobody.
    confirmed_at integer,
    -- The newest time step whose code was taken: no code is taken twice.
    last_step integer not null default 0
) strict;

create table recovery_codes (
    person integer not null references second_factors (person) on delete cascade,
    code_hash blob not null,
    primary key (person, code_hash)
) strict, without rowid;
