-- When the last canary that came out of the line was sent, by the database's clock: all that came into the line
-- before is settled. With line_progress.until it says which jobs must have come out, also of an idle line; one
-- that must have and has no outcome is lost. NULL while the line's worker is of a release that does not tell.
ALTER TABLE line_reports ADD COLUMN cleared_until timestamptz;
