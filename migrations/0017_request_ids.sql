-- What the client called the request (X-Request-Id), where it did.
ALTER TABLE dead_letters ADD COLUMN request_id text;
