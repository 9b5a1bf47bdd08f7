-- What a shop's own tables look like: a row per SKU and location, and the keys of the
-- commands that were carried out, with their outcome.

CREATE TABLE IF NOT EXISTS stock (
    sku      text   NOT NULL,
    location text   NOT NULL,
    on_hand  bigint NOT NULL CHECK (on_hand >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0 AND reserved <= on_hand),
    PRIMARY KEY (sku, location)
) WITH (fillfactor = 50); -- room for a row's next version on the same page

CREATE TABLE IF NOT EXISTS idempotency (
    key     text PRIMARY KEY,
    outcome text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS reservation (
    id         text PRIMARY KEY,
    skus       text[] NOT NULL,
    quantities bigint[] NOT NULL
);

-- A sell in one round trip. A refusal leaves no trace.
CREATE OR REPLACE FUNCTION sell(k text, s text, l text, n bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE was text;
BEGIN
    INSERT INTO idempotency (key, outcome) VALUES (k, 'sold') ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT outcome INTO was FROM idempotency WHERE key = k;
        RETURN was;
    END IF;
    UPDATE stock SET on_hand = on_hand - n
        WHERE sku = s AND location = l AND on_hand - reserved >= n;
    IF NOT FOUND THEN
        DELETE FROM idempotency WHERE key = k;
        RETURN 'refused';
    END IF;
    RETURN 'sold';
END $$;

-- Lines come sorted by SKU, so that two orders never wait for each other in a circle. A
-- refusal is an error, which undoes what was held already.
CREATE OR REPLACE FUNCTION reserve(k text, s text[], l text, n bigint[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE was text;
BEGIN
    INSERT INTO idempotency (key, outcome) VALUES (k, 'reserved') ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT outcome INTO was FROM idempotency WHERE key = k;
        RETURN was;
    END IF;
    FOR i IN 1 .. cardinality(s) LOOP
        UPDATE stock SET reserved = reserved + n[i]
            WHERE sku = s[i] AND location = l AND on_hand - reserved >= n[i];
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'ST001', MESSAGE = 'not enough stock';
        END IF;
    END LOOP;
    INSERT INTO reservation (id, skus, quantities) VALUES (k, s, n);
    RETURN 'reserved';
END $$;

CREATE OR REPLACE FUNCTION settle(k text, r text, l text, sold boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    was text;
    held reservation;
BEGIN
    INSERT INTO idempotency (key, outcome) VALUES (k, 'settled') ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT outcome INTO was FROM idempotency WHERE key = k;
        RETURN was;
    END IF;
    DELETE FROM reservation WHERE id = r RETURNING * INTO held;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no reservation %', r;
    END IF;
    FOR i IN 1 .. cardinality(held.skus) LOOP
        UPDATE stock
            SET reserved = reserved - held.quantities[i],
                on_hand = on_hand - CASE WHEN sold THEN held.quantities[i] ELSE 0 END
            WHERE sku = held.skus[i] AND location = l;
    END LOOP;
    RETURN 'settled';
END $$;
