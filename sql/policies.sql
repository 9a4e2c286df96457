-- Row level security: whoever may read these tables sees the rows that are theirs. There are no policies for writing:
-- only the extension's own functions write, with the rights of its owner. FORCE: only superusers and BYPASSRLS are exempt.
alter table snowflake_bridge.snowflake_configurations enable row level security;
alter table snowflake_bridge.snowflake_configurations force row level security;
create policy own_rows on snowflake_bridge.snowflake_configurations for select
    using ((owner_kind, user_id, owner_oid) = (select c.owner_kind, c.user_id, coalesce(c.owner_oid, 0)
                                              from snowflake_bridge.caller() c));

alter table snowflake_bridge.uploads enable row level security;
alter table snowflake_bridge.uploads force row level security;
create policy own_rows on snowflake_bridge.uploads for select
    using ((owner_kind, user_id, owner_oid) = (select c.owner_kind, c.user_id, coalesce(c.owner_oid, 0)
                                              from snowflake_bridge.caller() c));

-- Nobody is granted anything on these; row level security without a policy is the second lock on the door.
alter table snowflake_bridge.installation enable row level security;
alter table snowflake_bridge.installation force row level security;
alter table snowflake_bridge.cancellations enable row level security;
alter table snowflake_bridge.cancellations force row level security;
alter table snowflake_bridge.missed enable row level security;
alter table snowflake_bridge.missed force row level security;
alter table snowflake_bridge.sent_bytes enable row level security;
alter table snowflake_bridge.sent_bytes force row level security;
alter table snowflake_bridge.watches enable row level security;
alter table snowflake_bridge.watches force row level security;
