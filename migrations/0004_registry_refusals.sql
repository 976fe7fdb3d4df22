-- Since when a registry has refused somebody's credentials; null while it takes them.

alter table registry_credentials add column refused_at integer;
