-- The shop's tables, and its role: it may call jobsvc_enqueue, and has no right on the tables of jobsvc.
DO $$ BEGIN CREATE ROLE shop; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
GRANT shop TO CURRENT_USER;
GRANT EXECUTE ON FUNCTION jobsvc_enqueue TO shop;
CREATE SCHEMA IF NOT EXISTS shop;
GRANT USAGE ON SCHEMA shop TO shop;
CREATE TABLE IF NOT EXISTS shop.products (
    name text PRIMARY KEY,
    stock int NOT NULL CHECK (stock >= 0)
);
CREATE TABLE IF NOT EXISTS shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product text NOT NULL REFERENCES shop.products,
    cents int NOT NULL,
    receipt text, -- once it is charged and packed
    message text -- once the customer is notified
);
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA shop TO shop;
INSERT INTO shop.products VALUES ('teapot', 12) ON CONFLICT (name) DO UPDATE SET stock = EXCLUDED.stock;
