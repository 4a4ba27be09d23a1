-- From version 1 to 2. The functions take other arguments. The tables are those of schema.sql, but for the first of the stores of version 1, whose rows did
-- not say since when a thread has news; the triggers that go with `ready` are made again by the engine.

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('ownloop' || '.threads') AND attname = 'woken_at' AND NOT attisdropped) THEN
        ALTER TABLE ownloop.threads ADD COLUMN woken_at bigint NOT NULL DEFAULT 0;
        UPDATE ownloop.threads SET woken_at = updated_at;
        ALTER TABLE ownloop.threads DROP COLUMN ready CASCADE;
        ALTER TABLE ownloop.threads ADD COLUMN ready bigint GENERATED ALWAYS AS (
            CASE status
                WHEN 'done' THEN due
                WHEN 'open' THEN CASE WHEN lease_until IS NOT NULL THEN lease_until WHEN woken > seen THEN woken_at - 4611686018427387904 ELSE due END
            END
        ) STORED;
        CREATE INDEX threads_ready ON ownloop.threads (agent, ready) WHERE ready IS NOT NULL;
    END IF;
END $$;
