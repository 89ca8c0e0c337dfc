-- Which programs may run on this schema, and how long coupons are good.

-- Programs of two releases run side by side while a deployment rolls, or is rolled back. The oldest one
-- that this schema admits knows the migrations up to this number. A migration that only adds leaves
-- it; one that an older program does not survive raises it, and `migrate` of such a program says so.
CREATE TABLE schema_compatibility (
    oldest_program bigint NOT NULL
);
INSERT INTO schema_compatibility (oldest_program) VALUES (7);

-- First instant at which an issued coupon can no longer be used. Apart from the campaign's end, so that
-- ending it early does not take back what customers hold.
ALTER TABLE coupons ADD COLUMN valid_until timestamptz;
UPDATE coupons SET valid_until = ends_at;
ALTER TABLE coupons ALTER COLUMN valid_until SET NOT NULL;
-- Unless given, also by programs that do not know it.
CREATE FUNCTION default_valid_until() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.valid_until := COALESCE(NEW.valid_until, NEW.ends_at);
    RETURN NEW;
END
$$;
CREATE TRIGGER coupons_valid_until BEFORE INSERT ON coupons
    FOR EACH ROW EXECUTE FUNCTION default_valid_until();

-- One address is one user, however it is written. Those that are two by now stay so.
DO $$
DECLARE
    twice text;
BEGIN
    SELECT string_agg(id::text, ', ') INTO twice
    FROM (SELECT id, row_number() OVER (PARTITION BY lower(email) ORDER BY id) AS nth FROM users) AS numbered
    WHERE nth > 1;
    EXECUTE 'CREATE UNIQUE INDEX users_email_in_any_case ON users (lower(email))'
        || COALESCE(' WHERE id NOT IN (' || twice || ')', '');
END
$$;
