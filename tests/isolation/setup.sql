-- What every spec begins and ends with. A worker is nowhere; its steps are those of src/worker/steps.rs.
create schema spec;

-- The extension anew, so that ids count from 1, and a watched table with as many finished executions as asked for.
create procedure spec.start(executions integer) language plpgsql as $$
begin
    create extension snowflake_bridge;
    perform snowflake_bridge.create_config(
        account_identifier => 'acme-demo.localhost', warehouse => 'W', database => 'D', schema => 'S',
        username => 'U', password => 'secret', verify => false);
    perform snowflake_bridge.watch('public.runs', create_if_missing => true);
    insert into public.runs (execution_id, status, snowflake_enabled, result_rows)
    select 'run-' || n, 'completed', true, '[{"n": 1}]' from generate_series(1, executions) n;
end;
$$;

create procedure spec.stop() language plpgsql as $$
begin
    drop table if exists public.runs;
    drop extension if exists snowflake_bridge cascade;
end;
$$;

-- The uploads as they are, without times.
create function spec.uploads(
    out id bigint, out execution_id text, out state text, out claims integer, out attempts integer, out generation bigint,
    out message text)
returns setof record language plpgsql as $$
begin
    return query select u.id, u.execution_id, u.state, u.claim_count, u.attempt_count, u.generation, u.error_message
                   from snowflake_bridge.uploads u order by u.id;
end;
$$;
