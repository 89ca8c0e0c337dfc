-- When the generation that takes new jobs took over. The lines before it are closed by that alone: their rows
-- may be held by a batch for as long as it takes. partition_leases.closed_at follows when the row is free.
ALTER TABLE routing ADD COLUMN switched_at timestamptz;
