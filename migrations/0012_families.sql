-- Lines belong to families: coupon lines and product lines; what a job is (its kind) is another matter. Beside
-- `kind`, where that meant the lines' family, stands `family`, by which this release reads and writes. The release
-- before this one goes on by `kind`, beside it while a deployment rolls: what either leaves out is filled in. A later
-- migration drops `kind` and the trigger; it raises schema_compatibility.oldest_program to this number.

CREATE FUNCTION fill_family() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.family := COALESCE(NEW.family, CASE NEW.kind WHEN 'issue-coupon' THEN 'coupon' WHEN 'place-order' THEN 'product' END);
    NEW.kind := COALESCE(NEW.kind, CASE NEW.family WHEN 'coupon' THEN 'issue-coupon' WHEN 'product' THEN 'place-order' END);
    RETURN NEW;
END
$$;

-- The constraints keep their names, by which both releases refer to them.
DO $$
DECLARE
    changed record;
BEGIN
    FOR changed IN
        SELECT * FROM (VALUES
            ('partition_leases', ', generation, line'), ('routing', ''), ('workers', NULL), ('line_reports', ', generation, line'),
            ('line_progress', ', generation, line'), ('line_arrivals', ', generation, line, bucket'), ('pins', ', key')
        ) AS tables (name, key)
    LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN family text', changed.name);
        EXECUTE format($sql$UPDATE %I SET family = CASE kind WHEN 'issue-coupon' THEN 'coupon' ELSE 'product' END$sql$, changed.name);
        EXECUTE format('ALTER TABLE %I ALTER COLUMN family SET NOT NULL', changed.name);
        EXECUTE format('CREATE TRIGGER %I BEFORE INSERT ON %I FOR EACH ROW EXECUTE FUNCTION fill_family()',
                       changed.name || '_family', changed.name);
        IF changed.name = 'routing' THEN
            ALTER TABLE pins DROP CONSTRAINT pins_kind_fkey;
        END IF;
        IF changed.key IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %1$I DROP CONSTRAINT %2$I, ADD CONSTRAINT %2$I PRIMARY KEY (family%3$s)',
                           changed.name, changed.name || '_pkey', changed.key);
            EXECUTE format('CREATE INDEX %I ON %I (kind%s)', changed.name || '_kind', changed.name, changed.key);
        END IF;
    END LOOP;
END
$$;
ALTER TABLE pins
    DROP CONSTRAINT pins_number_key,
    ADD CONSTRAINT pins_number_key UNIQUE (family, number),
    ADD CONSTRAINT pins_family_fkey FOREIGN KEY (family) REFERENCES routing (family);

-- After what a line's queue is named: <namespace>.issue-coupon.1.03 or <namespace>.coupon.1.03. The release before
-- this one knows the first way only, and does not say so.
ALTER TABLE partition_leases
    ADD COLUMN naming text NOT NULL DEFAULT 'kind',
    ADD CONSTRAINT partition_leases_naming CHECK (naming IN ('kind', 'family'));
-- The newest way that the worker knows. While one that knows the first way only is alive, no queue is named in the other.
ALTER TABLE workers
    ADD COLUMN naming text NOT NULL DEFAULT 'kind',
    ADD CONSTRAINT workers_naming CHECK (naming IN ('kind', 'family'));
-- One that comes all the same, because a deployment is rolled back, would look for a line's jobs in a queue of another
-- name. Until the others have named the lines in its way again it serves none, and leaves their routing to the others,
-- who say in the transaction that they know how.
CREATE FUNCTION refuse_older_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Neither one that says so, nor one that was paused for so long that it counts as dead and says nothing.
    IF NEW.owner IS NOT NULL AND NOT EXISTS (SELECT FROM workers WHERE id = NEW.owner AND naming = 'family') THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER partition_leases_older_owner BEFORE UPDATE OF owner ON partition_leases
    FOR EACH ROW WHEN (NEW.naming = 'family' AND NEW.owner IS DISTINCT FROM OLD.owner)
    EXECUTE FUNCTION refuse_older_workers();
CREATE FUNCTION leave_to_newer_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM partition_leases WHERE family = OLD.family AND generation IN (OLD.generation, NEW.generation) AND naming = 'family') THEN
        RAISE EXCEPTION 'the lines of this generation are replaced by a worker of a newer release';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER partition_leases_older_retirement BEFORE DELETE ON partition_leases
    FOR EACH ROW WHEN (OLD.naming = 'family' AND current_setting('firstcome.naming', true) IS DISTINCT FROM 'family')
    EXECUTE FUNCTION leave_to_newer_workers();
-- Its last message would go into a queue of another name.
CREATE FUNCTION refuse_end_by_older_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the lines of this generation are ended by a worker of a newer release';
END
$$;
CREATE TRIGGER partition_leases_older_end BEFORE UPDATE OF ended_at ON partition_leases
    -- A line that is drained is ended by who drains it, without the lock.
    FOR EACH ROW WHEN (OLD.naming = 'family' AND NEW.drained_at IS NULL AND NEW.ended_at IS DISTINCT FROM OLD.ended_at
                       AND current_setting('firstcome.naming', true) IS DISTINCT FROM 'family')
    EXECUTE FUNCTION refuse_end_by_older_workers();
CREATE TRIGGER routing_older_switch BEFORE UPDATE OF generation ON routing
    FOR EACH ROW WHEN (current_setting('firstcome.naming', true) IS DISTINCT FROM 'family')
    EXECUTE FUNCTION leave_to_newer_workers();

-- Of workers that this schema admits no longer (0008).
DROP TRIGGER line_reports_of_older_workers ON line_reports;
DROP FUNCTION count_settled_by_older_workers();
