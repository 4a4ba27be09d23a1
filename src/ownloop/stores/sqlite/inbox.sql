-- Version 3. When an interrupt that a person can decide expires, and the index of the urgent ones. The kinds are codes of codec.py: those of DECIDABLE.

ALTER TABLE interrupts ADD COLUMN expires_at INTEGER;
UPDATE interrupts SET expires_at = (SELECT json_extract(e.data, '$.expires_at') FROM events e WHERE e.thread = interrupts.thread AND e.seq = interrupts.seq)
    WHERE kind IN (0, 1, 2, 6, 7, 8);
CREATE INDEX interrupts_urgent ON interrupts (expires_at, at, thread, seq, kind) WHERE status = 0 AND expires_at IS NOT NULL;
